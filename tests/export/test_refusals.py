"""What a program must not do is refused with its layer and line, and what it may is let through."""

import inspect

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.capture import export_program
from export.errors import CaptureError
from export.refusals import check_logits, check_program, last_pooling
from export.served import Served
from export.sizes import EXAMPLE
from models.card import Activation, Preprocessing
from tests.export.lowering import Function, Pixels

COLOUR = Preprocessing(channels=3, mean=(100,) * 3, std=(50,) * 3, policy="native")


class Layer(nn.Module):
    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


LINE = inspect.getsourcelines(Layer.forward)[1] + 1


class Net(nn.Module):
    """Three classes; `layer` stands in the middle, `end` behind the logits."""

    def __init__(self, layer: nn.Module, end: Function = lambda x: x, classes: int = 3) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), layer)
        self.head = nn.Linear(4, classes)
        self.end = end

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.head(self.body(x).mean((2, 3))))


def captured(
    network: nn.Module, activation: Activation = "softmax"
) -> torch.export.ExportedProgram:
    n, h, w = EXAMPLE
    pixels = torch.zeros((n, h, w, 3), dtype=torch.uint8)
    return export_program(Served(network, COLOUR, activation), pixels)[0]


def attention(dropout: float) -> Function:
    def attend(x: Tensor) -> Tensor:
        tokens = F.adaptive_avg_pool2d(x, 3).flatten(2).transpose(1, 2)  # (n, 9, 4)
        mixed = F.scaled_dot_product_attention(tokens, tokens, tokens, dropout_p=dropout)
        return mixed.transpose(1, 2).reshape(x.shape[0], 4, 3, 3)

    return attend


DROPOUT = "drop out in training only: nn.Dropout does, F.dropout needs training=self.training"
DRAWN = "draw in training only (if self.training: …), and take the expected value otherwise"
RANDOM: dict[str, tuple[Function, str, str]] = {
    "dropout": (lambda x: F.dropout(x, 0.5), "dropout", DROPOUT),
    "dropout2d": (lambda x: F.dropout2d(x, 0.5), "feature_dropout", DROPOUT),
    "rrelu": (lambda x: F.rrelu(x, training=True), "rrelu", "draw slopes in training only: nn.RR"),
    "rand_like": (lambda x: x + torch.rand_like(x), "rand_like", DRAWN),
    "randn": (lambda x: x + torch.randn(4, 1, 1), "randn", DRAWN),
    "bernoulli": (lambda x: x * torch.bernoulli(torch.full_like(x, 0.5)), "bernoulli", DRAWN),
    "multinomial": (lambda x: x[:, torch.multinomial(torch.ones(4), 4)], "multinomial", DRAWN),
    "in place": (lambda x: x + torch.empty(4, 1, 1).uniform_(), "uniform_", DRAWN),
    "attention": (attention(0.1), "scaled_dot_product_attention", DRAWN),
}  # fmt: skip


@pytest.mark.parametrize(("function", "operator", "advice"), RANDOM.values(), ids=RANDOM)
def test_what_draws_at_random_is_refused_with_layer_and_line(
    function: Function, operator: str, advice: str
) -> None:
    with pytest.raises(CaptureError) as refused:
        check_program(captured(Net(Layer(function))), "softmax")
    assert str(refused.value).startswith(
        f"layer body.1, Layer (test_refusals.py, line {LINE}), draws at random in evaluation mode "
        f"({operator}): {advice}"
    )


def test_fractional_max_pooling_is_refused_with_the_pooling_to_take() -> None:
    program = captured(Net(nn.FractionalMaxPool2d(2, output_size=3)))
    with pytest.raises(CaptureError, match=r"^layer body\.1, FractionalMaxPool2d .* every image, .*"
                       r"take models\.pool\.POOLS\['fractional_max'\]"):  # fmt: skip
        check_program(program, "softmax")


def test_what_draws_in_forward_of_the_network_itself_is_named() -> None:
    network = Net(nn.Identity(), lambda x: F.dropout(x, 0.5))
    with pytest.raises(
        CaptureError, match=r"^forward of Net \(test_refusals\.py, line \d+\) draws"
    ):
        check_program(captured(network), "softmax")


class Stubborn(nn.BatchNorm2d):
    """Stays in training mode whatever is asked."""

    def train(self, mode: bool = True) -> "Stubborn":
        super().train(True)
        return self


@pytest.mark.parametrize(
    "layer",
    [
        nn.BatchNorm2d(4, track_running_stats=False),
        Stubborn(4),
        Layer(lambda x: F.batch_norm(x, None, None, training=True)),
    ],
    ids=["no statistics", "always training", "as a call"],
)
def test_statistics_of_the_batch_are_refused(layer: nn.Module) -> None:
    with pytest.raises(CaptureError) as refused:
        check_program(captured(Net(layer)), "softmax")
    said = str(refused.value)
    assert said.startswith(f"layer body.1, {type(layer).__name__} (test_refusals.py, line ")
    assert "normalises with the mean and variance of the batch" in said
    assert said.endswith("(track_running_stats=True) and use them in evaluation mode")


@pytest.mark.parametrize(
    "layer",
    [
        nn.Dropout(0.5),
        nn.Dropout2d(0.5),
        nn.RReLU(),
        nn.BatchNorm2d(4),
        nn.GroupNorm(2, 4),
        nn.InstanceNorm2d(4),
        Layer(lambda x: F.dropout(x, 0.5, training=False)),
        Layer(attention(0.0)),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_what_only_training_draws_is_let_through(layer: nn.Module) -> None:
    check_program(captured(Net(layer)), "softmax")


# --- activations


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize(
    "end",
    [
        torch.sigmoid,
        nn.Sigmoid(),
        nn.Hardsigmoid(),
        lambda x: x.sigmoid().view(x.shape[0], -1),
        lambda x: torch.flatten(x.sigmoid(), 1),
        lambda x: x[:, :, None, None].sigmoid(),
        lambda x: (x.sigmoid(), x),
    ],
    ids=["call", "module", "hard", "view", "flatten", "map", "tuple"],
)
def test_a_sigmoid_at_the_end_and_an_activation_behind_is_refused(
    end: Function, activation: Activation
) -> None:
    program = captured(Net(nn.Identity(), end), activation)
    with pytest.raises(CaptureError, match="ends in a sigmoid already: say --activation none"):
        check_program(program, activation)


def test_a_sigmoid_at_the_end_is_fine_without_another_and_inside_the_network() -> None:
    check_program(captured(Net(nn.Identity(), torch.sigmoid), "none"), "none")
    check_program(captured(Net(nn.Sigmoid())), "softmax")


LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.1, 0.2, 3.0]])
ONE = "one output, of which softmax is always 1: say --activation sigmoid"
ALREADY = "ends in a softmax already: say --activation none"
RAW = "they run from -1 to 3: say --activation softmax, or sigmoid if classes do not exclude"


@pytest.mark.parametrize(
    ("logits", "activation", "said"),
    [
        (LOGITS, "none", RAW),
        (LOGITS.softmax(1), "softmax", ALREADY),
        (LOGITS.softmax(1), "sigmoid", ALREADY),
        (LOGITS[:, :1], "softmax", ONE),
        (torch.ones(2, 1), "softmax", ONE),
        (LOGITS.sigmoid() * 1.1, "none", "they run from "),
    ],
)
def test_an_activation_that_does_not_belong_to_the_logits_is_refused(
    logits: Tensor, activation: Activation, said: str
) -> None:
    with pytest.raises(CaptureError, match=said):
        check_logits([logits[:1], logits[1:]], activation)


@pytest.mark.parametrize(
    ("logits", "activation"),
    [
        (LOGITS, "softmax"),
        (LOGITS, "sigmoid"),
        (LOGITS[:, :1], "sigmoid"),
        (LOGITS.softmax(1), "none"),
        (LOGITS.sigmoid(), "none"),
        (LOGITS[:, :1].sigmoid(), "none"),
        (torch.cat([LOGITS.softmax(1)[:1], LOGITS[1:]]), "softmax"),  # one row is no proof
        (LOGITS.log_softmax(1), "softmax"),
    ],
)
def test_an_activation_that_may_belong_to_the_logits_is_let_through(
    logits: Tensor, activation: Activation
) -> None:
    check_logits([logits[:1], logits[1:]], activation)


# --- the pooling in words


@pytest.mark.parametrize(
    ("pool", "words"),
    [
        (nn.AdaptiveAvgPool2d(1), "adaptive average to 1×1"),
        (nn.AdaptiveMaxPool2d((3, 2)), "adaptive maximum to 3×2"),
        (nn.AdaptiveAvgPool2d((None, 1)), "global average"),  # of what is left of the map
        (Layer(lambda x: F.avg_pool2d(x, x.shape[2:])), "adaptive average to 1×1"),
        (nn.Identity(), "global average"),
        (Layer(lambda x: x.amax((2, 3), keepdim=True)), "amax over height and width"),
        (nn.MaxPool2d(3, 2), "global average"),
    ],
    ids=str,
)
def test_the_last_pooling_of_maps_is_told(pool: nn.Module, words: str) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), pool, Layer(lambda x: x.mean((2, 3))))
    assert last_pooling(captured(network)) == words


def test_a_pooling_of_no_known_kind_is_not_told() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), Layer(lambda x: x[:, :, 0, 0]))
    assert last_pooling(captured(network)) is None


class StandardisedWeights(nn.Conv2d):
    """Normalises its weights, as a batch of one, each time: timm's ScaledStdConv2d does."""

    def forward(self, x: Tensor) -> Tensor:
        rows = self.weight.reshape(1, self.out_channels, -1)
        weight = F.batch_norm(rows, None, None, training=True).reshape_as(self.weight)
        return F.conv2d(x, weight, self.bias)


def test_statistics_of_weights_are_no_statistics_of_the_batch() -> None:
    network = Pixels([StandardisedWeights(2, 3, 3)]).eval()
    program, _ = export_program(network, torch.zeros(*EXAMPLE, 2))
    check_program(program, "none")
