"""What is served of anybody's network: its logits, and what its last linear layer gets."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from export.capture import export_program
from export.errors import CaptureError
from export.served import Served, logits_of
from models.card import Preprocessing
from tests.export.lowering import relative_error, run, session, to_graph

COLOUR = Preprocessing(channels=3, mean=(100,) * 3, std=(50,) * 3, policy="native")
PIXELS = torch.randint(0, 256, (2, 20, 30, 3), dtype=torch.uint8)


class Net(nn.Module):
    """Three classes; what `answer` makes of logits (n, 3) and features (n, 4) is its answer."""

    def __init__(self, answer: Callable[[Tensor, Tensor], Any] = lambda logits, _: logits) -> None:
        super().__init__()
        self.trunk = nn.Conv2d(3, 4, 3, 2, 1)
        self.early = nn.Linear(4, 4)
        self.head = nn.Sequential(nn.Dropout(), nn.Linear(4, 3))
        self.answer = answer

    def features(self, x: Tensor) -> Tensor:
        features: Tensor = self.early(self.trunk(x).mean((2, 3))).relu()
        return features

    def forward(self, x: Tensor) -> Any:
        features = self.features(x)
        return self.answer(self.head(features), features)


@pytest.mark.parametrize(
    "answer",
    [
        lambda logits, _: logits,
        lambda logits, features: (logits, features),
        lambda logits, features: [logits],
        lambda logits, _: {"loss": None, "logits": logits},
        lambda logits, _: SimpleNamespace(logits=logits),
    ],
    ids=["tensor", "tuple", "list", "dict", "object"],
)
@torch.no_grad()
def test_the_embedding_is_what_goes_into_the_last_linear_layer(
    answer: Callable[[Tensor, Tensor], Any],
) -> None:
    network = Net(answer)
    served = Served(network, COLOUR)
    served.find_last(PIXELS)
    assert served.last == "head.1"
    logits, probabilities, embedding = served(PIXELS)
    x = (PIXELS.permute(0, 3, 1, 2).float() - 100) / 50
    torch.testing.assert_close(embedding, network.features(x), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(logits, network.head(network.features(x)), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(probabilities, logits.softmax(1))


@pytest.mark.parametrize(
    "answer",
    [
        lambda logits, _: logits * 2,
        lambda logits, _: logits.softmax(1),
        lambda logits, _: logits[:, :, None, None],
        lambda logits, features: features,
        lambda logits, _: logits[:, :2],
    ],
    ids=["scaled", "softmax", "map", "other layer", "some"],
)
@torch.no_grad()
def test_without_a_linear_layer_at_the_end_there_is_no_embedding(
    answer: Callable[[Tensor, Tensor], Any],
) -> None:
    served = Served(Net(answer), COLOUR)
    served.find_last(PIXELS)
    assert served.last is None
    assert len(served(PIXELS)) == 2


@torch.no_grad()
def test_a_linear_layer_over_places_gives_no_embedding() -> None:
    class Places(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(3, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(x.permute(0, 2, 3, 1)).mean((1, 2))  # type: ignore[no-any-return]

    served = Served(Places(), COLOUR)
    served.find_last(PIXELS)
    assert served.last is None


@torch.no_grad()
def test_a_layer_that_runs_twice_gives_what_it_got_last() -> None:
    class Twice(Net):
        def forward(self, x: Tensor) -> Tensor:
            features = self.features(x)
            self.head(features * 0)
            logits: Tensor = self.head(features)
            return logits

    network = Twice()
    served = Served(network, COLOUR)
    served.find_last(PIXELS)
    _, _, embedding = served(PIXELS)
    assert torch.equal(embedding, network.features(served.normalised(PIXELS)))


def test_no_hooks_stay_behind() -> None:
    served = Served(Net(), COLOUR)
    served.find_last(PIXELS)
    served(PIXELS)
    for layer in served.modules():
        assert not layer._forward_hooks
        assert not layer._forward_pre_hooks


@torch.no_grad()
def test_the_embedding_of_the_graph_is_that_of_torch() -> None:
    network = Net()
    served = Served(network, COLOUR)
    served.find_last(torch.zeros((2, 61, 83, 3), dtype=torch.uint8))
    program, _ = export_program(served, torch.zeros((2, 61, 83, 3), dtype=torch.uint8))
    runner = session(to_graph(program, ["logits", "probabilities", "embedding"]))
    got = run(runner, PIXELS.numpy())
    want = network.features(served.normalised(PIXELS)).numpy()
    assert relative_error(got[2], want) <= 2e-5


@torch.no_grad()
def test_a_network_that_views_its_input_gets_it_contiguous() -> None:
    class Views(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            assert x.is_contiguous()
            return x.view(x.size(0), 3, -1).mean(2)

    logits, _ = Served(Views(), COLOUR)(PIXELS)
    torch.testing.assert_close(logits, (PIXELS.float().mean((1, 2)) - 100) / 50)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (torch.zeros(2, 3, 7, 9), r"a tensor of 4 dimensions, \(2, 3, 7, 9\); .*pool over height"),
        (torch.zeros(2, 9, 3), r"a tensor of 3 dimensions, \(2, 9, 3\); let it give the logits"),
        (torch.zeros(2), r"a tensor of 1 dimensions, \(2,\); let it give the logits"),
        ({"out": torch.zeros(2, 3)}, "forward gives dict; let it give the logits, a tensor"),
        ({"logits": [1.0]}, "forward gives dict; let it give the logits"),
        ((), "forward gives tuple; "),
        (((torch.zeros(2, 3),),), "forward gives tuple; "),
        (None, "forward gives NoneType; "),
        (3.5, "forward gives float; "),
        ("logits", "forward gives str; "),
        (SimpleNamespace(logits=None), "forward gives SimpleNamespace; "),
    ],
)
def test_an_answer_that_is_no_logits_is_refused(answer: Any, said: str) -> None:
    with pytest.raises(CaptureError, match=said):
        logits_of(answer)


@pytest.mark.parametrize(
    "answer",
    [
        torch.ones(2, 3),
        torch.ones(2, 3, 1, 1),
        (torch.ones(2, 3), torch.zeros(2, 9)),
        [torch.ones(2, 3)],
        {"logits": torch.ones(2, 3), "aux": torch.zeros(2, 3)},
        SimpleNamespace(logits=torch.ones(2, 3)),
        torch.ones(2, 3, dtype=torch.float64),
        torch.ones(2, 3, dtype=torch.bfloat16),
    ],
)
def test_logits_are_found_in_what_forward_gives(answer: Any) -> None:
    logits = logits_of(answer)
    assert logits.dtype == torch.float32
    assert torch.equal(logits, torch.ones(2, 3))
