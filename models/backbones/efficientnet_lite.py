"""EfficientNet-Lite0 (Tan and Le 2019; the Lite variant of tensorflow/tpu: ReLU6, no SE).

The released weights were trained in TensorFlow with "SAME" padding at 224 pixels, which puts the
odd pixel of a strided convolution at the end: (0, 1) for a 3×3 kernel, (1, 2) for a 5×5. Symmetric
padding would shift every feature map and cost seven points of accuracy.
"""

import re
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Stage:
    """`repeats` blocks; the first one has the stride."""

    kernel: int
    stride: int
    expand: int
    width: int
    repeats: int


_STEM, _FEATURES = 32, 1280
_STAGES = (
    Stage(kernel=3, stride=1, expand=1, width=16, repeats=1),
    Stage(kernel=3, stride=2, expand=6, width=24, repeats=2),
    Stage(kernel=5, stride=2, expand=6, width=40, repeats=2),
    Stage(kernel=3, stride=2, expand=6, width=80, repeats=3),
    Stage(kernel=5, stride=1, expand=6, width=112, repeats=3),
    Stage(kernel=5, stride=2, expand=6, width=192, repeats=4),
    Stage(kernel=3, stride=1, expand=6, width=320, repeats=1),
)


def _conv_bn(
    cin: int, cout: int, kernel: int = 1, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    total = kernel - stride  # what "SAME" adds to an even side; half of it, rounded down, in front
    front, end = total // 2, total - total // 2
    return [
        nn.ZeroPad2d((front, end, front, end)) if total > 0 else nn.Identity(),
        nn.Conv2d(cin, cout, kernel, stride=stride, groups=groups, bias=False),
        nn.BatchNorm2d(cout, eps=1e-3, momentum=0.01),
    ]


class InvertedResidual(nn.Module):
    """Widen, filter each channel, narrow: (n, cin, h, w) to (n, cout, h', w')."""

    def __init__(self, cin: int, stage: Stage, stride: int) -> None:
        super().__init__()
        wide = cin * stage.expand
        self.expand = (
            nn.Sequential(*_conv_bn(cin, wide), nn.ReLU6()) if stage.expand > 1 else nn.Identity()
        )
        self.depthwise = nn.Sequential(
            *_conv_bn(wide, wide, stage.kernel, stride, groups=wide), nn.ReLU6()
        )
        self.project = nn.Sequential(*_conv_bn(wide, stage.width))
        self.shortcut = stride == 1 and cin == stage.width

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(self.depthwise(self.expand(x)))  # (n, cout, h', w')
        return x + y if self.shortcut else y


class EfficientNetLite0(nn.Module):
    """RGB images (n, 3, h, w), both sides at least 32, to (n, 1280, ~h/32, ~w/32)."""

    features = _FEATURES

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_conv_bn(3, _STEM, kernel=3, stride=2), nn.ReLU6())
        blocks, cin = [], _STEM
        for stage in _STAGES:
            for index in range(stage.repeats):
                blocks.append(InvertedResidual(cin, stage, stage.stride if index == 0 else 1))
                cin = stage.width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Sequential(*_conv_bn(cin, _FEATURES), nn.ReLU6())

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)  # (n, 32, h/2, w/2)
        x = self.blocks(x)  # (n, 320, h/32, w/32)
        features: Tensor = self.head(x)  # (n, 1280, h/32, w/32)
        return features


_CONV, _BN = "1", "2"  # places in _conv_bn
_RELEASED = (
    (r"_conv_stem\.", rf"backbone.stem.{_CONV}."),
    (r"_bn0\.", rf"backbone.stem.{_BN}."),
    (r"_conv_head\.", rf"backbone.head.{_CONV}."),
    (r"_bn1\.", rf"backbone.head.{_BN}."),
    (r"_blocks\.(\d+)\._expand_conv\.", rf"backbone.blocks.\1.expand.{_CONV}."),
    (r"_blocks\.(\d+)\._bn0\.", rf"backbone.blocks.\1.expand.{_BN}."),
    (r"_blocks\.(\d+)\._depthwise_conv\.", rf"backbone.blocks.\1.depthwise.{_CONV}."),
    (r"_blocks\.(\d+)\._bn1\.", rf"backbone.blocks.\1.depthwise.{_BN}."),
    (r"_blocks\.(\d+)\._project_conv\.", rf"backbone.blocks.\1.project.{_CONV}."),
    (r"_blocks\.(\d+)\._bn2\.", rf"backbone.blocks.\1.project.{_BN}."),
    (r"_fc\.", "head."),
)


def rename_released(key: str) -> str:
    """Our name for a tensor of the released state dict; an unknown one comes back unchanged."""
    for pattern, replacement in _RELEASED:
        renamed, hits = re.subn(f"^{pattern}", replacement, key)
        if hits:
            return renamed
    return key
