"""Where a network's own answers in float32 cannot be trusted, it is not offered."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from export.rounding import rounding, settled
from export.served import Served
from export.sizes import content
from models.card import Preprocessing, SizeLimits

PREPROCESSING = Preprocessing(channels=3, mean=(0, 0, 0), std=(3, 7, 11), policy="native")


class Means(nn.Module):
    """Channel means, and so many times what float32 loses of them beside 1e6."""

    def __init__(self, times: Callable[[int, int], float]) -> None:
        super().__init__()
        self.times = times

    def forward(self, x: Tensor) -> Tensor:
        means = x.mean((2, 3))
        return means + self.times(x.shape[2], x.shape[3]) * (means + 1e6 - 1e6)


def served(times: Callable[[int, int], float]) -> Served:
    return Served(Means(times).eval(), PREPROCESSING, "softmax")


@pytest.mark.parametrize(
    ("times", "smallest"),
    [
        (lambda h, w: 0.0, (1, 2)),
        (lambda h, w: float(h < 7), (8, 16)),
        (lambda h, w: float(w == 4), (4, 8)),  # as is all below that
        (lambda h, w: 1.0, (1, 2)),  # at every size: the comparison has to say it
    ],
)
def test_the_smallest_sides_are_those_from_which_torch_can_be_trusted(
    times: Callable[[int, int], float], smallest: tuple[int, int]
) -> None:
    limits = SizeLimits(min_height=1, min_width=2)
    assert settled(served(times), 3, limits).smallest() == smallest


def test_sides_stay_multiples() -> None:
    limits = SizeLimits(min_height=3, min_width=3, multiple=3)
    found = settled(served(lambda h, w: float(h < 5)), 3, limits)
    assert found.smallest() == (6, 6)
    assert found.multiple == 3


def test_rounding_is_what_float32_loses_on_images_of_usual_size() -> None:
    batches = [content(0, 1, 8, 8, 3), content(1, 1, 50, 50, 3)]
    assert rounding(served(lambda h, w: 0.0), batches) < 1e-6
    assert rounding(served(lambda h, w: float(h == 8)), batches) < 1e-6
    assert 1e-5 < rounding(served(lambda h, w: 1.0), batches) < 1e-2


def test_where_a_forward_takes_only_float32_nothing_is_told() -> None:
    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = x.mean((2, 3)) @ torch.eye(3)
            return logits

    network = Served(Fixed().eval(), PREPROCESSING, "softmax")
    assert rounding(network, [content(1, 1, 50, 50, 3)]) == 0
    limits = SizeLimits(min_height=1, min_width=1)
    assert settled(network, 3, limits) == limits
