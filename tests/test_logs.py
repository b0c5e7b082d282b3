from __future__ import annotations

import torch

from kaizen.logs import Meter


def test_means_of_tensors_and_numbers_since_the_last_flush() -> None:
    meter = Meter()
    meter.add({"loss": torch.tensor(1.0, requires_grad=True), "tau": 0.5})
    meter.add({"loss": torch.tensor(3.0, dtype=torch.bfloat16), "tau": 0.75})
    meter.add({"tau": 1.0, "count": torch.tensor(4)})
    assert meter.flush() == {"loss": 2.0, "tau": 0.75, "count": 4.0}
    assert meter.flush() == meter.latest == {"loss": 2.0, "tau": 0.75, "count": 4.0}  # nothing new
    meter.add({"tau": 0.25})
    assert meter.flush() == {"tau": 0.25}


def test_a_value_that_changes_later_was_taken_as_it_was() -> None:
    meter, value = Meter(), torch.tensor(1.0)
    meter.add({"loss": value})
    value.add_(1)
    assert meter.flush() == {"loss": 1.0}
