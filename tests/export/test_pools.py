"""How authors write poolings: each comes out as in torch at every size, or is refused in words."""

import math
import re
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.capture import export_program
from export.errors import CaptureError, ExportError
from export.lower import to_onnx
from export.sizes import EXAMPLE
from tests.export.lowering import Function, Pixels, lower, relative_error, run, session, to_graph


class SqueezeExcite(nn.Module):
    """Weighs channels by what the whole map says: the mean as each of its authors writes it."""

    def __init__(self, mean: Function) -> None:
        super().__init__()
        self.mean = mean
        self.weigh = nn.Conv2d(2, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        weights: Tensor = self.weigh(self.mean(x)).sigmoid()
        return x * weights


def gem(x: Tensor) -> Tensor:
    """As in Radenović's code and everybody's since."""
    sides = (x.size(-2), x.size(-1))
    mean: Tensor = F.avg_pool2d(x.clamp(min=1e-6).pow(3), sides)
    root: Tensor = mean.pow(1 / 3)
    return root


WHOLE: dict[str, Function] = {
    "avg shape": lambda x: F.avg_pool2d(x, x.shape[2:]),
    "avg shape, negative": lambda x: F.avg_pool2d(x, x.shape[-2:]),
    "avg size()": lambda x: F.avg_pool2d(x, x.size()[2:]),
    "avg size(-2), size(-1)": lambda x: F.avg_pool2d(x, (x.size(-2), x.size(-1))),
    "avg list": lambda x: F.avg_pool2d(x, [x.shape[2], x.shape[3]]),
    "avg keywords": lambda x: F.avg_pool2d(input=x, kernel_size=x.shape[2:]),
    "avg stride": lambda x: F.avg_pool2d(x, x.shape[2:], stride=x.shape[2:]),
    "avg stride 1": lambda x: F.avg_pool2d(x, x.shape[2:], 1, 0),
    "avg ceil_mode": lambda x: F.avg_pool2d(x, x.shape[2:], ceil_mode=True),
    "avg without padding": lambda x: F.avg_pool2d(x, x.shape[2:], count_include_pad=False),
    "avg columns": lambda x: F.avg_pool2d(x, (x.shape[2], 1)),
    "avg rows": lambda x: F.avg_pool2d(x, (1, x.shape[3]), stride=1),
    "max shape": lambda x: F.max_pool2d(x, x.shape[2:]),
    "max size()": lambda x: F.max_pool2d(x, x.size()[2:]),
    "max keywords": lambda x: F.max_pool2d(input=x, kernel_size=(x.size(-2), x.size(-1))),
    "max of torch": lambda x: torch.max_pool2d(x, x.shape[2:]),
    "max columns": lambda x: F.max_pool2d(x, (x.shape[2], 1), 1),
    "lp 2": lambda x: F.lp_pool2d(x, 2, (x.size(-2), x.size(-1))),
    "lp 3": lambda x: F.lp_pool2d(x.abs(), 3.0, x.size()[2:]),  # type: ignore[arg-type]
    "lp rows": lambda x: F.lp_pool2d(x, 2, kernel_size=(1, x.shape[3])),
    "lp of a window": lambda x: F.lp_pool2d(F.pad(x, (3, 3, 3, 3)), 2, 3, stride=2),
    "gem": gem,
    "area": lambda x: F.interpolate(x, (7, 7), mode="area"),
    "area of one": lambda x: F.interpolate(x, 1, mode="area"),
    "mean": lambda x: x.mean((2, 3)),
    "mean, kept": lambda x: x.mean([-2, -1], keepdim=True),
    "mean, one by one": lambda x: x.mean(3).mean(2),
    "mean of torch": lambda x: torch.mean(x, dim=(2, 3)),
    "amax": lambda x: x.amax((2, 3)),
    "max, one by one": lambda x: x.max(3)[0].max(2).values,
    "flatten, mean": lambda x: x.flatten(2).mean(-1),
    "view, mean": lambda x: x.view(x.size(0), x.size(1), -1).mean(2),
    "flatten, max": lambda x: x.flatten(2).max(-1).values,
    "sum over places": lambda x: x.sum((2, 3)) / (x.shape[2] * x.shape[3]),
    "reduce by torch": lambda x: torch.logsumexp(x, dim=(2, 3)),
    "pool, view(n, -1)": lambda x: F.adaptive_avg_pool2d(x, 1).view(x.size(0), -1),
    "pool, view(-1, c)": lambda x: F.avg_pool2d(x, x.shape[2:]).view(-1, 2),
    "pool, reshape(shape[0], -1)": lambda x: nn.AdaptiveMaxPool2d(3)(x).reshape(x.shape[0], -1),
    "pool, of one dimension": lambda x: F.adaptive_max_pool1d(x.flatten(2), 4),
    "pool, torch.flatten": lambda x: torch.flatten(nn.AdaptiveAvgPool2d((2, 2))(x), 1),
    "pool, squeeze": lambda x: F.adaptive_avg_pool2d(x, 1).squeeze(-1).squeeze(-1),
    "pool, None": nn.AdaptiveAvgPool2d((None, 1)),
    "excite, module": SqueezeExcite(nn.AdaptiveAvgPool2d(1)),
    "excite, mean": SqueezeExcite(lambda x: x.mean((2, 3), keepdim=True)),
    "excite, window": SqueezeExcite(lambda x: F.avg_pool2d(x, x.shape[2:])),
    "std": lambda x: torch.cat([x, x + x.mean(), -x], 3).std((2, 3)),  # of one place it is NaN
    "topk": lambda x: torch.cat([x, -x], 3).flatten(2).topk(2, -1).values.mean(-1),
}
DIVIDED: list[tuple[Any, Any, Any, int]] = [
    (2, 2, 0, 3),
    (3, 1, 1, 1),
    (3, 2, 1, 2),
    ((3, 2), (2, 1), (1, 1), 7),
    ((1, 5), 3, (0, 2), 4),
    (3, None, 0, -2),
]
WINDOWS: dict[str, Function] = {
    f"sums of {k}, stride {s}, padding {p}, {include}, over {divisor}": nn.AvgPool2d(
        k, s, p, count_include_pad=include, divisor_override=divisor
    )
    for k, s, p, divisor in DIVIDED
    for include in (True, False)
}
WINDOWS |= {
    "as a call": lambda x: F.avg_pool2d(x, 2, divisor_override=1),
    "in a list": lambda x: F.avg_pool2d(x, [3, 2], [2, 1], [1, 0], divisor_override=5),
    "max": nn.MaxPool2d(3, 2, 1),
    "max of torch, dilated": lambda x: torch.max_pool2d(x, 3, 1, 1, 2),
    "max, ceil_mode": lambda x: F.max_pool2d(x, 3, 2, ceil_mode=True),
    "max, its values": lambda x: F.max_pool2d(x, 2, return_indices=True)[0],
    "avg, ceil_mode": nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False),
}
RECKONED: dict[str, Function] = {
    "pad to a multiple": lambda x: F.pad(x, (0, -x.shape[3] % 8, 0, (-x.shape[2]) % 5)),
    "pad as TensorFlow": lambda x: F.pad(x, (0, max(-(-x.size(3) // 2) * 2 + 1 - x.size(3), 0))),
    "slice to half, up": lambda x: x[:, :, : -(-x.shape[2] // 2), :-(-x.shape[3] // 2)],
    "slice to a third, up": lambda x: x[:, :, : -(-x.shape[2] // 3), : -(-x.shape[3] // 3)],
    "slice to a third, down": lambda x: x[:, :, : (x.shape[2] + 3) // 3, : (x.shape[3] + 7) // 3],
    "slice by math.ceil": lambda x: x[:, :, : math.ceil(x.shape[2] / 2)],
    "slice by math.floor": lambda x: x[:, :, : math.floor((x.shape[2] + 2) / 3)],
    "slice the last third": lambda x: x[:, :, -x.shape[2] // 3 :],
    "resize up": lambda x: F.interpolate(x, (-(-x.shape[2] // 4), 5), mode="nearest"),
}  # fmt: skip
SIZES = ((1, 1, 1), (2, 2, 3), (1, 3, 2), (3, 5, 4), (1, 7, 7), (2, 8, 8), (1, 1, 31), (2, 40, 1),
         (1, 61, 83), (1, 33, 34), (2, 64, 96), (1, 101, 10), (1, 224, 225))  # fmt: skip


class Both(NamedTuple):
    """Functions in torch and in ONNX Runtime."""

    module: nn.Module
    runner: Any


def both(functions: dict[str, Function]) -> Both:
    torch.manual_seed(0)
    module = Pixels(list(functions.values())).eval()
    return Both(module, session(lower(module, len(functions))))


def images(n: int, h: int, w: int) -> np.ndarray:
    return np.random.default_rng(h * 91 + w).standard_normal((n, h, w, 2)).astype(np.float32)


@pytest.mark.parametrize(
    ("functions", "smallest"),
    [(WHOLE, 1), (WINDOWS, 3), (RECKONED, 1)],
    ids=["whole map", "windows", "reckoned sizes"],
)
def test_what_authors_write_is_right_at_every_size(
    functions: dict[str, Function], smallest: int
) -> None:
    module, runner = both(functions)
    for n, h, w in SIZES:
        if min(h, w) < smallest:
            continue
        x = images(n, h, w)
        with torch.no_grad():
            expected = module(torch.from_numpy(x))
        for name, got, want in zip(functions, run(runner, x), expected, strict=True):
            assert relative_error(got, want.numpy()) <= 2e-5, (name, n, h, w)


@torch.no_grad()
def test_a_maximum_that_torch_has_unrolled_into_its_own_kernel_is_right_at_every_size() -> None:
    # as in programs saved by others: our own way around torch's poolings is not in them
    module = Pixels([lambda x: F.adaptive_max_pool2d(x, (3, 2)), nn.AdaptiveMaxPool2d(1)])
    dynamic = (dict.fromkeys(range(3), torch.export.Dim.DYNAMIC),)
    example = (torch.zeros(*EXAMPLE, 2),)
    program = torch.export.export(module, example, dynamic_shapes=dynamic, strict=False)
    runner = session(to_graph(program, ["y0", "y1"]))
    for size in SIZES:
        x = images(*size)
        for got, want in zip(run(runner, x), module(torch.from_numpy(x)), strict=True):
            assert np.array_equal(got, want.numpy()), size


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.adaptive_max_pool2d(x, 3, return_indices=True)[1].float(),
        lambda x: F.adaptive_max_pool1d(x.flatten(2), 3, return_indices=True)[1].float(),
    ],
)
def test_indices_of_such_a_maximum_are_refused(function: Function) -> None:
    dynamic = (dict.fromkeys(range(3), torch.export.Dim.DYNAMIC),)
    example = (torch.zeros(*EXAMPLE, 2),)
    program = torch.export.export(Pixels([function]), example, dynamic_shapes=dynamic, strict=False)
    with pytest.raises(ExportError, match="also gives indices, which cannot be exported; take the"):
        to_onnx(program, ["y"])


NOT_WHOLE = "made from the input's size, but is not the whole map: take kernel_size=x.shape[2:]"
DIVISOR = "divisor_override cannot be exported together with ceil_mode or a window made from"
REFUSED: dict[str, tuple[Function, str]] = {
    "avg, one side": (lambda x: F.avg_pool2d(x, x.shape[2]), NOT_WHOLE),
    "max, one side": (lambda x: F.max_pool2d(x, x.shape[3]), NOT_WHOLE),
    "lp, one side": (lambda x: F.lp_pool2d(x, 2, x.shape[2]), NOT_WHOLE),
    "half": (lambda x: F.avg_pool2d(x, (x.shape[2] // 2, x.shape[3])), NOT_WHOLE),
    "swapped": (lambda x: F.avg_pool2d(x, (x.shape[3], x.shape[2])), NOT_WHOLE),
    "rows, two by two": (lambda x: F.avg_pool2d(x, (2, x.shape[3])), NOT_WHOLE),
    "rows, every second": (lambda x: F.avg_pool2d(x, (1, x.shape[3]), 2), NOT_WHOLE),
    "avg, padded": (lambda x: F.avg_pool2d(x, x.shape[2:], padding=1), NOT_WHOLE),
    "max, padded": (lambda x: F.max_pool2d(x, x.shape[2:], 1, 1), NOT_WHOLE),
    "padded by half": (lambda x: F.avg_pool2d(x, 9, 1, x.shape[2] // 20), NOT_WHOLE),
    "stride": (lambda x: F.max_pool2d(x, 3, (x.shape[2] // 7, x.shape[3] // 7)), NOT_WHOLE),
    "divisor, ceil_mode": (nn.AvgPool2d(2, ceil_mode=True, divisor_override=3), DIVISOR),
    "divisor, whole": (lambda x: F.avg_pool2d(x, x.shape[2:], divisor_override=3), DIVISOR),
    "indices": (
        lambda x: F.max_pool2d(x, x.shape[2:], return_indices=True)[0],
        "max pooling of the whole map cannot give indices: leave them out",
    ),
}


@pytest.mark.parametrize(("function", "said"), REFUSED.values(), ids=REFUSED)
def test_a_window_that_cannot_hold_at_every_size_is_refused(function: Function, said: str) -> None:
    with pytest.raises(CaptureError, match=re.escape(said)):
        export_program(Pixels([function]), torch.zeros(*EXAMPLE, 2))


def test_weights_that_differ_from_image_to_image_are_refused() -> None:
    def forward(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        weights = x.mean((2, 3)).reshape(n, c, 1, 1)  # one kernel for each image
        return F.conv2d(x.reshape(1, n * c, h, w), weights.repeat(1, c, 1, 1)[:, :c], groups=n)

    with pytest.raises(CaptureError, match=r"as many groups as there are images .* \(CondConv\)"):
        export_program(Pixels([forward]), torch.zeros(*EXAMPLE, 2))
