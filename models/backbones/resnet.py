"""Residual networks (He et al., "Deep Residual Learning for Image Recognition", 2015)."""

import re

from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3×3 convolutions around a shortcut: (n, cin, h, w) to (n, cout, ⌈h/s⌉, ⌈w/s⌉)."""

    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(cin, cout, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(cout)
        self.conv2 = nn.Conv2d(cout, cout, 3, stride=1, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(cout)
        self.relu = nn.ReLU()
        same = stride == 1 and cin == cout
        self.downsample: nn.Module = (
            nn.Identity()
            if same
            else nn.Sequential(
                nn.Conv2d(cin, cout, 1, stride=stride, bias=False), nn.BatchNorm2d(cout)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))  # (n, cout, h', w')
        y = self.bn2(self.conv2(y))  # (n, cout, h', w')
        out: Tensor = self.relu(y + self.downsample(x))  # (n, cout, h', w')
        return out


class ResNet18(nn.Module):
    """Stem and four stages of two blocks: (n, 3, h, w) to (n, 512, ⌈h/32⌉, ⌈w/32⌉)."""

    features = 512

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        widths, strides = (64, 64, 128, 256, 512), (1, 2, 2, 2)
        self.stages = nn.Sequential(
            *(
                nn.Sequential(BasicBlock(cin, cout, stride), BasicBlock(cout, cout, 1))
                for cin, cout, stride in zip(widths, widths[1:], strides, strict=False)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))  # (n, 64, ⌈h/4⌉, ⌈w/4⌉)
        features: Tensor = self.stages(x)  # (n, 512, ⌈h/32⌉, ⌈w/32⌉)
        return features


def rename_released(key: str) -> str:
    """Our name for a tensor of a torchvision-style state dict; an unknown one stays as it is."""
    if key.startswith("fc."):
        return "head." + key.removeprefix("fc.")
    if stage := re.match(r"layer(\d)\.", key):
        return f"backbone.stages.{int(stage[1]) - 1}.{key[stage.end() :]}"
    if key.startswith(("conv1.", "bn1.")):
        return f"backbone.{key}"
    return key
