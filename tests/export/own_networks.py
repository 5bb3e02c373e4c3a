"""Networks for `--import`: some that cannot become artifacts, one that comes out wrong, and
one that cannot run images of different sizes together.

Only `anypool export` imports this, in its own process: importing it registers them.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models import labels
from models.classifier import PoolingClassifier
from models.pool import POOLS
from models.registry import get, register
from tests.export.lowering import Calls, Function


def add(
    name: str,
    function: Function,
    classes: int = 2,
    head: Callable[[], nn.Module] = lambda: nn.Linear(1, 2),
) -> None:
    """Register seed_cnn with `function` instead of its convolutions, and two logits."""

    def build() -> PoolingClassifier:
        return PoolingClassifier(Calls(function), POOLS["avg"](), head()).eval()

    register(
        replace(get("seed_cnn"), name=name, build=build, labels=lambda: labels.numbered(classes))
    )


def decides(x: Tensor) -> Tensor:
    """What odd heights get, torch.export takes for what all get: its example has one."""
    return x * 3 if x.shape[2] % 2 else x + 1


def crash(x: Tensor) -> Tensor:
    raise SystemExit(7)


def hidden_layer() -> nn.Module:
    return nn.Sequential(nn.Linear(1, 3), nn.ReLU(), nn.Linear(3, 2))


def overflows(x: Tensor, largest: float = 90_000) -> Tensor:
    """In between numbers up to `largest`, before and after of the image's own size."""
    up, down = (torch.full((1, 1, 1, 1), factor) for factor in (largest**0.5, 1 / 256))
    x = F.conv2d(F.conv2d(x, up), up).relu()
    return F.conv2d(F.conv2d(x, down), down)


add("overflows", overflows)
add("stays_small", lambda x: overflows(x, 9_000))
add("indices", lambda x: F.adaptive_max_pool2d(x, 3, return_indices=True)[1].float())
add("sized_by_input", lambda x: F.adaptive_avg_pool2d(x, (x.shape[2] // 2 + 1, 3)))
add("one_size_only", lambda x: x + torch.zeros(64, 64))
add("wrong_labels", lambda x: x, classes=3)
add("crash", crash)
add("hidden_layer", lambda x: x + 2, head=hidden_layer)
add("resized", lambda x: F.interpolate(x + 2, scale_factor=0.25, mode="nearest"))
add("decides", decides)
