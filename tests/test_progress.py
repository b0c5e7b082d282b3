"""What a task says of how far it is."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from helpers import learner_of

from kaizen import progress


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(("before", "left"), [(0, "0:20"), (80, "2:00")])
def test_the_time_left_goes_by_the_steps_of_this_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], before: int, left: str
) -> None:
    """20 epochs of 10 steps; 18 are done after 180 seconds of this process, alone or after another one's eight."""
    clock = iter((0.0, 180.0 if before == 0 else 600.0))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    trainer = SimpleNamespace(global_step=before, accumulate_grad_batches=1, num_training_batches=10)
    callback, learner = progress.Progress("task 0", epochs=20), learner_of()
    callback.on_train_start(trainer, learner)  # type: ignore[arg-type]
    trainer.global_step, trainer.current_epoch = 180, 17
    callback.on_train_epoch_end(trainer, learner)  # type: ignore[arg-type]
    assert capsys.readouterr().out == f"task 0 epoch 18/20    {left} left\n"
