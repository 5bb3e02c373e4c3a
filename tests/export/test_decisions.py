"""What forward decides by the image's size is noted with its place, and tried on both sides."""

import inspect
import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.capture import export_program
from export.decisions import Decision, explored
from export.errors import CaptureError
from export.sizes import EXAMPLE, example_size, grid, otherwise
from models.card import SizeLimits
from tests.export.lowering import Function, Pixels, lower, relative_error, run, session

ANY = SizeLimits(min_height=1, min_width=1)
LARGE = SizeLimits(min_height=32, min_width=32)


def decisions(function: Function) -> list[Decision]:
    return export_program(Pixels([function]), torch.zeros(*EXAMPLE, 2))[1]


CONDITIONS: dict[str, tuple[Function, str]] = {
    "height": (lambda x: x * 2 if x.shape[2] > 200 else x, "height > 200"),
    "width": (lambda x: x * 2 if x.size(3) >= 300 else x, "width >= 300"),
    "batch": (lambda x: x * 2 if x.shape[0] == 1 else x, "Eq(batch, 1)"),
    "area": (lambda x: x * 2 if x.shape[2] * x.shape[3] > 9000 else x, "height*width > 9000"),
    "numel": (lambda x: x * 2 if x.numel() < 99 else x, "2*height*batch*width < 99"),
    "parity": (lambda x: x * 2 if x.shape[2] % 2 else x, "Ne(Mod(height, 2), 0)"),
    "smallest side": (lambda x: x * 2 if min(x.shape[2:]) < 32 else x, "Min(height, width) < 32"),
    "square": (lambda x: x * 2 if x.shape[2] == x.shape[3] else x, "Eq(height, width)"),
    "not": (lambda x: x if not x.shape[2] > 200 else x * 2, "height > 200"),
    "later map": (lambda x: x * 2 if F.avg_pool2d(x, 2).shape[2] < 7 else x, "((height//2)) < 7"),
}  # fmt: skip
FAR: dict[str, tuple[Function, str]] = {
    "height": (lambda x: x * 2 if x.shape[2] > 1500 else x, "height > 1500"),
    "both sides": (lambda x: x * 2 if min(x.shape[2:]) > 700 else x, "Min(height, width) > 700"),
    "area": (lambda x: x * 2 if x.shape[2] * x.shape[3] > 3_000_000 else x, "height*width > 3000"),
}  # fmt: skip


@pytest.mark.parametrize(("function", "said"), CONDITIONS.values(), ids=CONDITIONS)
def test_a_condition_on_the_size_is_noted_with_its_line_and_the_grid_has_both_answers(
    function: Function, said: str
) -> None:
    (decision,) = decisions(function)
    _, line = inspect.getsourcelines(function)
    assert re.fullmatch(rf"test_decisions\.py, line {line}: {re.escape(said)}", str(decision))
    assert {decision.takes(*size) for size in grid(ANY, [decision])} == {True, False}


@pytest.mark.parametrize(("function", "said"), FAR.values(), ids=FAR)
def test_a_condition_beyond_the_grid_adds_one_size_on_its_other_side(
    function: Function, said: str
) -> None:
    (decision,) = decisions(function)
    assert said in str(decision)
    usual = decision.takes(*example_size(ANY))
    assert {decision.takes(*size) for size in grid(ANY)} == {usual}
    *known, added = grid(ANY, [decision])
    assert known == grid(ANY)
    assert decision.takes(*added) != usual


@pytest.mark.parametrize("limits", [(64, 32, 32), (32, 48, 1), (28, 12, 4)])
def test_an_added_size_is_legal(limits: tuple[int, int, int]) -> None:
    height, width, multiple = limits
    allowed = SizeLimits(min_height=height, min_width=width, multiple=multiple)
    function, _ = FAR["both sides"]
    n, h, w = grid(allowed, decisions(function))[-1]
    assert min(h, w) > 700
    assert n in (1, 2, 3)
    assert allowed.allow(h, w)


UNREACHABLE: dict[str, Function] = {
    "no images": lambda x: x * 2 if x.shape[0] == 0 else x,
    "no height": lambda x: x * 2 if x.shape[2] < 1 else x,
    "channels": lambda x: x * 2 if x.shape[1] != 2 else x,
    "dimensions": lambda x: x * 2 if x.dim() != 4 else x,
    "height modulo 1": lambda x: x * 2 if x.shape[2] % 1 else x,
}


@pytest.mark.parametrize("function", UNREACHABLE.values(), ids=UNREACHABLE)
def test_a_condition_that_no_image_meets_adds_nothing(function: Function) -> None:
    found = decisions(function)
    assert grid(ANY, found) == grid(ANY)


def test_a_condition_too_far_to_try_adds_nothing() -> None:
    found = decisions(lambda x: x * 2 if x.shape[2] > 100_000 else x)
    assert len(found) == 1
    assert grid(ANY, found) == grid(ANY)


def test_what_torch_decides_in_its_own_code_is_not_noted() -> None:
    def forward(x: Tensor) -> Tensor:
        x = F.pad(x, (3, 3, 3, 3), mode="reflect")
        x = F.max_pool2d(x, 3, 2, 1, ceil_mode=True)
        x = F.interpolate(x, scale_factor=0.5, mode="bilinear")
        return F.adaptive_avg_pool2d(x, 3).flatten(1)

    assert decisions(forward) == []


def pad_if_needed(x: Tensor) -> Tensor:
    if x.shape[2] % 8:
        x = F.pad(x, (0, 0, 0, -x.shape[2] % 8))
    return x


def pad_if_positive(x: Tensor) -> Tensor:
    rows, columns = -x.shape[2] % 4, -x.shape[3] % 4
    if rows > 0 or columns > 0:
        x = F.pad(x, (0, columns, 0, rows))
    return x


@pytest.mark.parametrize("function", [pad_if_needed, pad_if_positive])
@torch.no_grad()
def test_a_decision_that_does_not_matter_is_noted_and_comes_out_right(function: Function) -> None:
    assert decisions(function)
    module = Pixels([function])
    runner = session(lower(module, 1))
    for h, w in ((8, 8), (64, 96), (61, 83), (7, 16), (16, 7), (1, 1)):
        x = np.random.default_rng(h).standard_normal((1, h, w, 2)).astype(np.float32)
        (got,), (want,) = run(runner, x), module(torch.from_numpy(x))
        assert relative_error(got, want.numpy()) <= 2e-5, (h, w)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x * int(x.shape[2]),
        lambda x: x.mean((2, 3)).view(len(x), -1),
        lambda x: x * float(x.shape[3]),
        lambda x: sum((x[:, :, row] for row in range(x.shape[2])), start=x[:, :, 0]),
        lambda x: x * [1, 2, 3][x.shape[2] % 3],
        lambda x: x * np.arange(9)[x.shape[2] % 9],
    ],
    ids=["int", "len", "float", "range", "index", "numpy"],
)
def test_a_size_that_becomes_a_plain_number_is_refused_naming_the_line(function: Function) -> None:
    _, line = inspect.getsourcelines(function)
    with pytest.raises(CaptureError, match=rf"plain number .*\(test_decisions\.py, line {line}\)"):
        decisions(function)


def test_numpy_on_sizes_is_refused_naming_the_line() -> None:
    def forward(x: Tensor) -> Tensor:
        scale: float = np.sqrt(x.shape[2])
        return x * scale

    _, line = inspect.getsourcelines(forward)
    with pytest.raises(CaptureError, match=rf"\(test_decisions\.py, line {line + 1}\): TypeError"):
        decisions(forward)


def test_a_condition_that_fixes_the_batch_is_refused_naming_the_line() -> None:
    # torch keeps as a fact that the example's 2 is not more than 2, and that no batch is 1
    def forward(x: Tensor) -> Tensor:
        return x * 2 if x.shape[0] > 2 else x

    _, line = inspect.getsourcelines(forward)
    place = rf"decides by a size in test_decisions\.py, line {line + 1}\)"
    with pytest.raises(CaptureError, match=rf"cannot keep batch, .* dynamic \(forward {place}"):
        decisions(forward)


def test_sizes_in_arithmetic_decide_nothing() -> None:
    def forward(x: Tensor) -> Tensor:
        return x[:, :, : x.shape[2] // 2 + 1] / (x.shape[2] * x.shape[3]) + x.numel()

    assert decisions(forward) == []


class Branches(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.shape[2] > 100 else x


def test_the_same_place_run_twice_is_one_decision() -> None:
    twice = nn.Sequential(Branches(), Branches())
    assert len(decisions(twice)) == 1


def test_nothing_stays_patched() -> None:
    before: list[Callable[..., object]] = [torch.SymBool.__bool__, torch.SymInt.__int__]
    with pytest.raises(CaptureError):
        decisions(lambda x: x * int(x.shape[2]))
    assert [torch.SymBool.__bool__, torch.SymInt.__int__] == before


def strided(x: Tensor) -> Tensor:
    """Maps of side 1 at small sizes, which torch.export takes for fixed."""
    x = F.avg_pool2d(F.avg_pool2d(x, 8), 4)
    return x * 2 if x.shape[2] > 9 and x.shape[3] > 9 else x


HIDDEN: dict[str, Function] = {
    "and": lambda x: x * 2 if x.shape[2] > 300 and x.shape[3] > 300 else x,
    "of strided maps": strided,
    "or": lambda x: x if x.shape[2] < 300 or x.shape[3] < 300 else x * 2,
    "nested": lambda x: (x * 2 if x.shape[3] % 32 == 5 else x) if x.shape[2] > 500 else x,
    "elif": lambda x: x if x.shape[2] < 200 else x * 3 if x.shape[3] > 700 else x,
    "one size": lambda x: x * 2 if tuple(x.shape[2:]) == (384, 385) else x,
    "one size of a later map": lambda x: x * 2 if F.avg_pool2d(x, 32).shape[2] == 11 else x,
}


@pytest.mark.slow
@pytest.mark.parametrize("function", HIDDEN.values(), ids=HIDDEN)
def test_what_hides_behind_another_condition_is_found_and_tried(function: Function) -> None:
    module = Pixels([lambda x: function(x).mean((2, 3))])
    sizes = grid(LARGE)

    def trace(size: tuple[int, int, int]) -> list[Decision]:
        return export_program(module, torch.zeros(*size, 2))[1]

    found = explored(trace, trace(EXAMPLE), lambda decision: otherwise(decision, sizes, LARGE))
    one = torch.rand(3, 2, 1, 1)
    graph = session(lower(module, 1))
    wrong = [
        size
        for size in grid(LARGE, found)
        if relative_error(
            run(graph, one.permute(0, 2, 3, 1).expand(3, *size[1:], 2).numpy())[0],
            module(one.permute(0, 2, 3, 1).expand(3, *size[1:], 2))[0].numpy(),
        )
        > 2e-5
    ]
    assert wrong  # verification sees it
    assert len(wrong) < len(grid(LARGE, found))


def test_no_more_ways_are_looked_for_than_can_be_paid_for() -> None:
    runs = []

    def trace(size: tuple[int, int, int]) -> list[Decision]:
        runs.append(size)
        return decisions(lambda x: x * 2 if x.shape[2] == 100 + 3 * len(runs) else x)

    explored(trace, trace(EXAMPLE), lambda decision: (2, 50 + len(runs), 60))
    assert len(runs) == 13
