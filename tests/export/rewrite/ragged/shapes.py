"""Small networks whose axes are split, made one, cut, padded and upsampled."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.weights import seeded
from tests.export.rewrite.ragged.zoo import net


class NonLocal(nn.Module):
    """Every place looks at every place of its image, in two heads."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        q, k, v = self.qkv(x).reshape(n, 3, 2, c // 2, h * w).unbind(1)
        weight = (q.transpose(2, 3) @ k).softmax(-1)  # (n, 2, h·w, h·w)
        seen: Tensor = (v @ weight.transpose(2, 3)).reshape(n, c, h, w)
        return x + seen


class GlobalContext(nn.Module):
    """Channels weighed by what one attention map over all places sees."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.score = nn.Conv2d(channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, c, _, _ = x.shape
        weight = self.score(x).reshape(n, 1, -1, 1).softmax(2)  # (n, 1, h·w, 1)
        seen = x.reshape(n, c, -1).unsqueeze(1) @ weight  # (n, 1, c, 1)
        return x * torch.sigmoid(seen.reshape(n, c, 1, 1))


class SelectiveKernel(nn.Module):
    """Two paths on an axis of their own, weighed by both."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(channels, channels, 3, padding=1)
        self.wide = nn.Conv2d(channels, channels, 3, padding=2, dilation=2)

    def forward(self, x: Tensor) -> Tensor:
        paths = torch.stack([self.narrow(x), self.wide(x)], 1)  # (n, 2, c, h, w)
        weight = paths.mean((3, 4), keepdim=True).softmax(1)
        return (paths * weight).sum(1)


class Context(nn.Module):
    """What the whole image says, at every place."""

    def forward(self, x: Tensor) -> Tensor:
        whole = x.mean((2, 3), keepdim=True)
        return torch.cat([x, whole.expand(-1, -1, x.shape[2], x.shape[3])], 1)


class Written(nn.Module):
    """Adds to some channels in place: the exporter turns the axes round for that."""

    def forward(self, x: Tensor) -> Tensor:
        y = x.relu()
        y[:, :, :, :] += x
        return y


def shuffle(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def blocks(x: Tensor) -> Tensor:
    """Space to depth, and the rows of each block made one with its columns."""
    n, c, h, w = x.shape
    return (
        x.reshape(n, c, h // 2, 2, w // 2, 2)
        .permute(0, 3, 5, 1, 2, 4)
        .reshape(n, 4 * c, h // 2, w // 2)
    )


def unblocks(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return (
        x.reshape(n, c // 4, 2, 2, h, w).permute(0, 1, 4, 2, 5, 3).reshape(n, c // 4, 2 * h, 2 * w)
    )


def padded_up(x: Tensor, multiple: int = 3) -> Tensor:
    return F.pad(x, (0, -x.shape[3] % multiple, 0, -x.shape[2] % multiple))


def lifted(norm: nn.Module) -> nn.Module:
    """Give a normalisation factors and terms that it does not have yet."""
    for parameter in norm.parameters():
        nn.init.uniform_(parameter, -1.0, 1.0)
    return norm


def padded(mode: str, amounts: tuple[int, int, int, int]) -> Callable[[Tensor], Tensor]:
    return lambda x: F.pad(x, amounts, mode=mode)


def last() -> nn.Module:
    """A convolution that sees what lies behind the edge."""
    return nn.Conv2d(6, 6, 3, padding=1)


BODIES: dict[str, Callable[[], nn.Module]] = {
    "channel shuffle": lambda: net(shuffle, last()),
    "non-local": lambda: net(NonLocal(6), last()),
    "global context": lambda: net(GlobalContext(6), last()),
    "selective kernel": lambda: net(SelectiveKernel(6), last()),
    "context at every place": lambda: net(Context(), nn.Conv2d(12, 6, 3, padding=1)),
    "product of two maps": lambda: net(lambda x: x @ x.mT, last()),
    "the mean at every place": lambda: net(
        lambda x: x.mean((2, 3), keepdim=True).expand_as(x), last()
    ),
    "flattened softmax": lambda: net(
        head=lambda x: (x * x.flatten(2).softmax(2).view_as(x)).sum((2, 3))
    ),
    "flattened mean": lambda: net(head=lambda x: x.flatten(2).mean(2)),
    "flattened maximum": lambda: net(head=lambda x: x.flatten(2).amax(2)),
    "places last": lambda: net(head=lambda x: x.flatten(2).transpose(1, 2).mean(1)),
    "covariance": lambda: net(
        head=lambda x: (x.flatten(2) @ x.flatten(2).transpose(1, 2)).flatten(1)
    ),
    "channels and columns made one": lambda: net(
        head=lambda x: x.permute(0, 2, 1, 3).flatten(2).mean(2).amax(1, keepdim=True)
    ),
    "group norm": lambda: net(lifted(nn.GroupNorm(2, 6)), last()),
    "group norm of everything": lambda: net(lifted(nn.GroupNorm(1, 6)), last()),
    "group norm after division": lambda: net(
        lambda x: x.abs().log() / x, lambda x: x.clamp(-3, 3), lifted(nn.GroupNorm(3, 6)), last()
    ),
    "instance norm": lambda: net(lifted(nn.InstanceNorm2d(6, affine=True)), last()),
    "response norm": lambda: net(
        lambda x: x + x * (lambda g: g / g.mean(1, keepdim=True))(
            x.norm(p=2, dim=(2, 3), keepdim=True)), last()
    ),
    "squeezed": lambda: net(head=lambda x: x.mean(2, keepdim=True).squeeze(2).amax(2)),
    "crop": lambda: net(padded("constant", (-1, -1, -1, -1)), last()),
    "shift": lambda: net(padded("constant", (-1, 1, -1, 1)), nn.AvgPool2d(1, 2), last()),
    "shift the other way": lambda: net(padded("constant", (1, -1, 2, -1)), last()),
    "cut off the start": lambda: net(lambda x: x[:, :, 1:, 1:], last()),
    "cut off the end": lambda: net(lambda x: x[:, :, :-1, :-2], last()),
    "cut off as the size says": lambda: net(lambda x: x[:, :, : x.shape[2] - 1], last()),
    "every other place": lambda: net(lambda x: x[:, :, ::2, 1::2], last()),
    "four phases": lambda: net(
        padded("constant", (0, 1, 0, 1)),
        lambda x: torch.cat([x[:, :3, :-1, 1:], x[:, 3:, 1:, :-1]], 1), last()
    ),
    "reflected": lambda: net(padded("reflect", (1, 2, 2, 1)), last()),
    "replicated": lambda: net(padded("replicate", (2, 1, 1, 2)), last()),
    "blurred": lambda: net(
        nn.ReLU(), padded("reflect", (1, 1, 1, 1)),
        lambda x: F.conv2d(x, torch.ones(6, 1, 3, 3) / 9, stride=2, groups=6), last()
    ),
    "reflected after division": lambda: net(
        lambda x: x.abs().log() / x, lambda x: x.clamp(-3, 3), padded("reflect", (1, 1, 1, 1)),
        last()
    ),
    "padded with nothing lower": lambda: net(
        lambda x: F.pad(x, (1, 1, 1, 1), value=-float("inf")), nn.MaxPool2d(3, 2), last()
    ),
    "padded with one": lambda: net(lambda x: F.pad(x, (0, 1, 2, 3), value=1.0), last()),
    "padded up to a multiple": lambda: net(padded_up, nn.Conv2d(6, 6, 3, stride=3), last()),
    "upsampled": lambda: net(lambda x: F.interpolate(x, scale_factor=2.0, mode="nearest"), last()),
    "upsampled and pooled": lambda: net(
        lambda x: F.interpolate(x, scale_factor=3.0, mode="nearest"), nn.MaxPool2d(2, 2), last()
    ),
    "pooled and upsampled again": lambda: net(
        lambda x: x * F.interpolate(F.avg_pool2d(x, 2), x.shape[2:], mode="nearest"), last()
    ),
    "shrunk to nearest": lambda: net(
        lambda x: F.interpolate(x, ((x.shape[2] * 3 + 4) // 5, x.shape[3] // 2)), last()
    ),
    "pools ceil and a convolution": lambda: net(
        lambda x: F.avg_pool2d(x, 2, 2, ceil_mode=True, count_include_pad=False)
        + F.conv2d(x, torch.ones(6, 1, 1, 1), stride=2, groups=6), last()
    ),
    "pools that shrink alike": lambda: net(
        lambda x: F.max_pool2d(x, 3, 2, 1) + F.max_pool2d(x, 2, 2, ceil_mode=True), last()
    ),
    "written into a slice": lambda: net(Written(), last()),
    "pool ceil beside a wider one": lambda: net(
        lambda x: torch.cat([F.max_pool2d(x[:, :3], 3, 2, ceil_mode=True),
                             F.avg_pool2d(x[:, 3:], 2, 2)], 1), last()
    ),
}  # fmt: skip

# Those that take sides of a multiple only: (what both sides must be divisible by, network).
MULTIPLES: dict[str, tuple[int, Callable[[], nn.Module]]] = {
    "space to depth": (4, lambda: net(blocks, nn.Conv2d(24, 6, 3, padding=1))),
    "space to depth and back": (4, lambda: net(blocks, lambda x: x.relu(), unblocks, last())),
    "pixel unshuffle": (4, lambda: net(nn.PixelUnshuffle(2), nn.Conv2d(24, 6, 3, padding=1))),
    "upsampled to another's size": (
        4, lambda: net(lambda x: x + F.interpolate(F.avg_pool2d(x, 2), x.shape[2:]), last())),
    "paths that agree on even sides": (
        4, lambda: net(lambda x: F.max_pool2d(x, 2) + F.max_pool2d(x, 3, 2, 1), last())),
}  # fmt: skip

# What must be refused where sides may be odd: a multiple to export with, the network, a word.
REFUSED: dict[str, tuple[int, Callable[[], nn.Module], str]] = {
    "space to depth of odd sides": (4, lambda: net(blocks), "equal blocks"),
    "paths that agree on even sides only": (
        4, lambda: net(lambda x: F.max_pool2d(x, 2) + F.max_pool2d(x, 3, 2, 1)), "regions differ"),
    "strided blocks": (
        4, lambda: net(lambda x: x.reshape(x.shape[0], 6, 2, x.shape[2] // 2, x.shape[3]).amax(2)),
        "equal blocks"),
    "convolution over merged axes": (
        1, lambda: net(
            lambda x: F.conv1d(x.flatten(2), torch.ones(6, 1, 3), groups=6).unsqueeze(3)),
        "several axes made one"),
    "images and heads made one": (
        1, lambda: net(
            lambda x: x.reshape(-1, 3, x.shape[2], x.shape[3]).softmax(1).reshape(x.shape)),
        "mixes the images"),
    "last row": (1, lambda: net(lambda x: x[:, :, -1:]), "canvas's end"),
    "first rows": (1, lambda: net(lambda x: x[:, :, :3]), "same place for all"),
    "half the rows": (1, lambda: net(lambda x: x[:, :, x.shape[2] // 2 :]), "canvas's end"),
    "circular": (1, lambda: net(padded("circular", (1, 1, 1, 1))), "other edge"),
    "same padding": (
        1, lambda: net(lambda x: F.pad(x, ((-x.shape[3] % 2) // 2 + x.shape[3] % 2,) * 2)),
        "SAME"),
    "padding by the other side": (
        1, lambda: net(lambda x: F.pad(x, (0, x.shape[2] % 2))), "follow the image's side"),
    "halved": (
        1, lambda: net(lambda x: F.interpolate(x, scale_factor=0.5)), "whole factors|known to be"),
    "bilinear": (
        1, lambda: net(lambda x: F.interpolate(x, scale_factor=2.0, mode="bilinear")),
        "beyond an image's edge"),
    "mean by the canvas's size": (
        1, lambda: net(head=lambda x: x.sum((2, 3)) / (x.shape[2] * x.shape[3])), "canvas's size"),
    "size as a number": (1, lambda: net(lambda x: x * x.shape[3]), "canvas's size"),
    "size as positions": (
        1, lambda: net(lambda x: x + torch.arange(x.shape[3])), "canvas's size"),
    "one map by another's places": (
        1, lambda: net(
            head=lambda x: (x.flatten(2) @ x.mT.flatten(2).transpose(1, 2)).flatten(1)),
        "depend on the place"),
}  # fmt: skip


def body(name: str) -> nn.Module:
    """One of BODIES or MULTIPLES, always with the same weights, in evaluation mode."""
    with seeded(1):
        built = BODIES[name]() if name in BODIES else MULTIPLES[name][1]()
        return built.eval()
