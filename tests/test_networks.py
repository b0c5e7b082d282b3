from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import args_of, batch_of, learner_of
from torch import Tensor, nn

from kaizen.args import UsageError
from kaizen.checkpoint import lasting
from kaizen.models.encoders import ENCODERS
from kaizen.networks import HEADS, encoder_of, head_of, heads_in

pytestmark = pytest.mark.usefixtures("tiny")

PATH = Path("x.ckpt")


def test_every_head_with_its_encoder() -> None:
    flags = ("--online_evaluation", "--momentum_classifier", "--classifier_layers", "5", "7")
    learner = learner_of(*flags, method="byol").eval()
    for value in learner.method.momentum.parameters():  # type: ignore[union-attr]
        value.mul_(1.5)
    state, images = lasting(learner.state_dict()), learner.eval_view(batch_of()[0])
    feats, logits = learner.look(images)
    assert heads_in(state) == [*HEADS] == [*logits]
    for name, (prefix, place) in HEADS.items():
        encoder, dim = encoder_of(args_of(*flags, method="byol"), state, place, PATH, "--flag")
        head, classes = head_of(args_of(), state, prefix, PATH, "--flag")
        found = encoder.eval()(images)
        assert found.shape == (8, dim) and classes == 10
        torch.testing.assert_close(head(found), logits[name])
        assert torch.allclose(found, feats) == (name != "momentum_online")


class Placed(nn.Module):
    """Adds numbers that no checkpoint has, and looks at the value of a tensor while it is made."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("place", torch.linspace(-1, 1, size)[: round(float(torch.tensor(8.0)))], persistent=False)
        self.layer = nn.Linear(8, 8)

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(images.mean(dim=(1, 2)) + self.place)


def test_what_an_encoder_computes_for_itself_is_there_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def placed(size: int, stem_padding: int, width: float, recompute: bool = True) -> tuple[nn.Module, int]:
        return Placed(size), 8

    monkeypatch.setitem(ENCODERS, "placed", placed)
    learner = learner_of("--encoder", "placed", "--encoder_width", "1").eval()
    images = learner.eval_view(batch_of()[0])
    torch.manual_seed(3)
    args = args_of("--encoder", "placed", "--encoder_width", "1")
    encoder, _ = encoder_of(args, lasting(learner.state_dict()), "method.encoder.", PATH, "--flag")
    drawn = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(1))  # weights that are not kept took no random numbers of others
    torch.testing.assert_close(encoder.eval()(images), learner.look(images)[0])


def test_layers_that_would_take_more_memory_than_the_file() -> None:
    state = {"classifier.0.weight": torch.ones(10**6, 1), "classifier.2.weight": torch.ones(10**6, 1)}
    with pytest.raises(UsageError, match="another architecture"):  # and not a layer of 10^12 weights between them
        head_of(args_of(), state, "classifier.", PATH, "--flag")


@pytest.mark.parametrize(
    "name", ["classifier.weight", "classifier.x.weight", "classifier.0.bias", "classifier.12345.weight"]
)
def test_what_is_no_head(name: str) -> None:
    tensor = torch.ones(3) if name.endswith("bias") else torch.ones(3, 2)
    with pytest.raises(UsageError, match="--flag x.ckpt: classifier"):
        head_of(args_of(), {name: tensor}, "classifier.", PATH, "--flag")
