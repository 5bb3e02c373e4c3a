"""Small networks, one for each rule of the pass and some that use many at once."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.pool import POOLS
from models.weights import seeded
from tests.export.lowering import Calls, Function


class SqueezeExcite(nn.Module):
    """Scale channels by what the whole image says."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.fc(F.adaptive_avg_pool2d(x, 1)))


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of each place."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = self.norm(x.permute(0, 2, 3, 1))
        return normed.permute(0, 3, 1, 2)


class ChannelsLast(nn.Module):
    """A matrix product at each place, channels last, and something for each image besides."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        own = x.mean((2, 3))[:, None, None] * self.weight  # (n, 1, c, c)
        mixed: Tensor = x.permute(0, 2, 3, 1) @ own + x.permute(0, 2, 3, 1) @ self.weight
        return mixed.permute(0, 3, 1, 2)


class Residual(nn.Module):
    """A strided 3×3 path and a strided 1×1 shortcut meet again."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.path = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        self.short = nn.Conv2d(channels, channels, 1, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.path(x) + self.short(x))


class Inception(nn.Module):
    """Branches of different kernels, joined by channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.tall = nn.Conv2d(channels, 4, (7, 1), padding=(3, 0))
        self.wide = nn.Conv2d(channels, 4, (1, 7), padding=(0, 3))
        self.pooled = nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.Conv2d(channels, 4, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.tall(x), self.wide(x), self.pooled(x)], 1)


class Attention(nn.Module):
    """Softmax over all places, one head."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.score = nn.Conv2d(channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        score = self.score(x)  # (n, 1, h, w)
        weight = torch.exp(score - score.amax((2, 3), keepdim=True))
        return (x * weight).sum((2, 3)) / weight.sum((2, 3))


def spp(x: Tensor) -> Tensor:
    return torch.cat([F.adaptive_max_pool2d(x, k).flatten(1) for k in (1, 2, 4)], 1)


def gem(x: Tensor) -> Tensor:
    return x.clamp(min=1e-6).pow(3.0).mean((2, 3)).pow(1 / 3)


def mixed(x: Tensor) -> Tensor:
    return 0.3 * x.amax((2, 3)) + 0.7 * x.mean((2, 3))


def spread(x: Tensor) -> Tensor:
    mean = x.mean((2, 3), keepdim=True)
    return torch.cat([mean.flatten(1), ((x - mean) ** 2).mean((2, 3)).sqrt()], 1)


def stem(channels: int = 6) -> nn.Module:
    """A convolution with end padding, whose outputs have both signs."""
    return nn.Conv2d(3, channels, 3, stride=2, padding=1)


def net(*layers: nn.Module | Function, head: Function | nn.Module | None = None) -> nn.Module:
    modules = [layer if isinstance(layer, nn.Module) else Calls(layer) for layer in layers]
    last = Calls(lambda x: x.mean((2, 3))) if head is None else head
    return nn.Sequential(stem(), *modules, last if isinstance(last, nn.Module) else Calls(last))


def pooled(pool: nn.Module) -> nn.Module:
    return nn.Sequential(pool, nn.Flatten())


# Every body is built under the same seed; smallest legal sides are at most 9×9 unless named below.
BODIES: dict[str, Callable[[], nn.Module]] = {
    "conv 3×3": lambda: net(nn.Conv2d(6, 6, 3, padding=1)),
    "conv without padding": lambda: net(nn.Conv2d(6, 6, 3)),
    "conv strided 1×1": lambda: net(nn.Conv2d(6, 6, 1, stride=2)),
    "conv dilated": lambda: net(nn.Conv2d(6, 6, 3, padding=2, dilation=2)),
    "conv grouped": lambda: net(nn.Conv2d(6, 6, 5, stride=2, padding=2, groups=3)),
    "conv depthwise": lambda: net(nn.Conv2d(6, 6, 3, padding=1, groups=6)),
    "conv 2×2 stride 2 padding 1": lambda: net(nn.Conv2d(6, 6, 2, stride=2, padding=1)),
    "conv padded at the end": lambda: net(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(6, 6, 3, stride=2)),
    "conv padded at the start": lambda: net(nn.ZeroPad2d((2, 0, 1, 0)), nn.Conv2d(6, 6, 3)),
    "pad alone": lambda: net(nn.ZeroPad2d((1, 2, 3, 4)), nn.ReLU()),
    "conv chain": lambda: net(*(nn.Conv2d(6, 6, 3, stride=s, padding=1) for s in (1, 2, 1, 2))),
    "batch norm": lambda: net(nn.ReLU(), nn.BatchNorm2d(6), nn.Conv2d(6, 6, 3, padding=1)),
    "max pool": lambda: net(nn.MaxPool2d(3, 2, 1)),
    "max pool after relu": lambda: net(nn.ReLU(), nn.MaxPool2d(3, 2, 1)),
    "max pool without padding": lambda: net(nn.MaxPool2d(2, 2)),
    "max pool ceil": lambda: net(nn.MaxPool2d(2, 2, ceil_mode=True)),
    "max pool ceil padded": lambda: net(nn.MaxPool2d(3, 2, 1, ceil_mode=True)),
    # Here the last window would start in the padding at the end, for some sizes.
    "max pool ceil 2×2 padded": lambda: net(nn.MaxPool2d(2, 2, 1, ceil_mode=True)),
    "max pool ceil 1×1": lambda: net(nn.MaxPool2d(1, 2, ceil_mode=True)),
    "avg pool ceil 2×2 padded": lambda: net(nn.AvgPool2d(2, 2, 1, ceil_mode=True)),
    "max pool rectangular": lambda: net(nn.MaxPool2d((3, 2), (2, 1), (1, 0))),
    "max pool dilated": lambda: net(nn.MaxPool2d(3, 1, 1, dilation=2)),
    "avg pool": lambda: net(nn.AvgPool2d(3, 2, 1)),
    "avg pool without padding": lambda: net(nn.AvgPool2d(2, 2)),
    "avg pool real pixels": lambda: net(nn.AvgPool2d(3, 2, 1, count_include_pad=False)),
    "avg pool ceil": lambda: net(nn.AvgPool2d(3, 2, 1, ceil_mode=True)),
    "avg pool ceil unpadded": lambda: net(nn.AvgPool2d(2, 2, ceil_mode=True)),
    "avg pool ceil real pixels": lambda: net(
        nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False)
    ),
    "avg pool rectangular": lambda: net(nn.AvgPool2d((2, 3), (1, 2), (1, 1), ceil_mode=True)),
    "lp pool": lambda: net(nn.LPPool2d(2, 3, stride=2), nn.Conv2d(6, 6, 3, padding=1)),
    "lp pool ceil": lambda: net(nn.LPPool2d(2, 2, ceil_mode=True), nn.Conv2d(6, 6, 3, padding=1)),
    "pools ceil side by side": lambda: net(
        lambda x: (
            F.max_pool2d(x, 3, 2, 1, ceil_mode=True) + F.avg_pool2d(x, 3, 2, 1, ceil_mode=True)
        ),
        nn.Conv2d(6, 6, 3, padding=1),
    ),
    "residual": lambda: net(Residual(6), nn.Conv2d(6, 6, 3, padding=1), Residual(6)),
    "inception": lambda: net(Inception(6), nn.Conv2d(12, 6, 3, padding=1)),
    "squeeze and excitation": lambda: net(
        nn.Conv2d(6, 6, 3, padding=1), SqueezeExcite(6), nn.Conv2d(6, 6, 3, padding=1)
    ),
    "channel norm": lambda: net(ChannelNorm(6), nn.Conv2d(6, 6, 3, padding=1)),
    "channels last": lambda: net(ChannelsLast(6), nn.Conv2d(6, 6, 3, padding=1)),
    "channel softmax": lambda: net(nn.Softmax(1), nn.Conv2d(6, 6, 3, padding=1)),
    "activations": lambda: net(
        *(
            nn.Sequential(activation, nn.Conv2d(6, 6, 3, padding=1))
            for activation in (
                nn.SiLU(),
                nn.Hardswish(),
                nn.GELU(),
                nn.Sigmoid(),
                nn.ELU(),
                nn.PReLU(6),
            )
        )
    ),
    "more activations": lambda: net(
        *(
            nn.Sequential(activation, nn.Conv2d(6, 6, 3, padding=1))
            for activation in (nn.Softplus(), nn.LeakyReLU(), nn.Tanh(), nn.ReLU6(), nn.Mish())
        )
    ),
    "log and division": lambda: net(
        lambda x: torch.log(x.abs()) / x, lambda x: x.clamp(-9, 9), nn.Conv2d(6, 6, 3, padding=1)
    ),
    "split channels": lambda: net(lambda x: x[:, :3] * x[:, 3:], nn.Conv2d(3, 6, 3, padding=1)),
    # Zero outside its own rows only: repeated along the columns it is not.
    "rows added to a padded map": lambda: net(
        lambda x: F.pad(x, (1, 1, 1, 1)) + F.pad(x.mean(3, keepdim=True), (0, 0, 1, 1)),
        nn.Conv2d(6, 6, 3, padding=1),
    ),
    "rows multiplied with a map": lambda: net(
        lambda x: (
            F.conv2d(x, torch.ones(6, 1, 1, 1), padding=1, groups=6)
            * F.pad(x.mean(3, keepdim=True), (0, 0, 1, 1))
        ),
        nn.Conv2d(6, 6, 3, padding=1),
    ),
    "larger of rows and a map": lambda: net(
        lambda x: torch.maximum(
            F.pad(x, (1, 1, 1, 1)), F.pad(x.mean(3, keepdim=True), (0, 0, 1, 1))
        ),
        nn.Conv2d(6, 6, 3, padding=1),
    ),
    "clip to negative values": lambda: net(
        nn.ReLU(), lambda x: x.clamp(max=-1.0) * x.mean(1, keepdim=True), nn.MaxPool2d(3, 2, 1)
    ),
    "sum over every axis but the batch": lambda: net(
        head=lambda x: x.sum((1, 2, 3), keepdim=True).flatten(1) + x.mean((2, 3))
    ),
    # The first operator after normalisation is rewritten itself.
    "mean first": lambda: Calls(lambda x: x.mean((2, 3))),
    "min first": lambda: Calls(lambda x: x.amin((2, 3))),
    "log-sum-exp first": lambda: Calls(lambda x: torch.logsumexp(x, (2, 3))),
    "adaptive average first": lambda: pooled(POOLS["adaptive_avg"]((3, 2))),
    "adaptive max first": lambda: pooled(POOLS["adaptive_max"]((3, 2))),
    "max pool ceil first": lambda: nn.Sequential(
        nn.MaxPool2d(3, 2, 1, ceil_mode=True), Calls(lambda x: x.mean((2, 3)))
    ),
    "avg pool first": lambda: nn.Sequential(
        nn.AvgPool2d(3, 2, 1, count_include_pad=False), Calls(lambda x: x.amax((2, 3)))
    ),
    "head global max": lambda: net(nn.ReLU(), head=lambda x: x.amax((2, 3))),
    "head global max of both signs": lambda: net(lambda x: x - 9, head=lambda x: x.amax((2, 3))),
    "head global min": lambda: net(head=lambda x: x.amin((2, 3))),
    "head gem": lambda: net(head=gem),
    "head spp": lambda: net(head=spp),
    "head mixed": lambda: net(head=mixed),
    "head mean and deviation": lambda: net(head=spread),
    "head attention": lambda: net(head=Attention(6)),
    "head log-sum-exp": lambda: net(head=lambda x: torch.logsumexp(x, (2, 3))),
    "head one axis after the other": lambda: net(head=lambda x: x.amax(3).mean(2)),
    "head sum of squares": lambda: net(head=lambda x: (x * x).sum((2, 3)).sqrt()),
    "head strided convolution": lambda: net(nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.ReLU()),
    "head stochastic": lambda: net(
        nn.ReLU(), head=lambda x: (x * x).sum((2, 3)) / x.sum((2, 3)).clamp(min=1e-3)
    ),
    "head adaptive average 3×3": lambda: net(head=pooled(POOLS["adaptive_avg"]((3, 3)))),
    "head adaptive average 2×5": lambda: net(head=pooled(POOLS["adaptive_avg"]((2, 5)))),
    "head adaptive average 1×1": lambda: net(head=pooled(POOLS["adaptive_avg"](1))),
    "head adaptive average, height kept": lambda: net(
        POOLS["adaptive_avg"]((None, 2)), head=lambda x: x.amax((2, 3))
    ),
    "head adaptive average, width kept": lambda: net(
        POOLS["adaptive_avg"]((3, None)), nn.Conv2d(6, 6, 3, padding=1)
    ),
    "head adaptive max 3×5": lambda: net(head=pooled(POOLS["adaptive_max"]((3, 5)))),
    "head adaptive max 1×1": lambda: net(head=pooled(POOLS["adaptive_max"](1))),
    "head adaptive max, height kept": lambda: net(
        POOLS["adaptive_max"]((None, 3)), nn.Conv2d(6, 6, 3, padding=1)
    ),
    "head global average": lambda: net(head=pooled(POOLS["avg"]())),
    "head global max pool": lambda: net(head=pooled(POOLS["max"]())),
}

# What the pass must refuse, and a word of the reason.
REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "mean of the batch": (lambda: net(lambda x: x - x.mean()), "mixes the images"),
    "size as data": (lambda: net(lambda x: x * x.shape[3]), "canvas"),
    "flip": (lambda: net(lambda x: x.flip(3)), "where images vary"),
    "map as output": (lambda: nn.Sequential(stem(), nn.ReLU()), "canvas's size"),
    "doubles": (lambda: net(head=lambda x: x.double().mean((2, 3))), "float32"),
    "whole numbers": (
        lambda: net(head=lambda x: x.round().to(torch.int32).sum((2, 3)).float()),
        "float32",
    ),
    "sum of everything": (lambda: net(lambda x: x / x.sum(dim=[])), "mixes the images"),
}


def body(name: str) -> nn.Module:
    """One of BODIES, always with the same weights, in evaluation mode."""
    with seeded(1):
        built = BODIES[name]()
        for module in built.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.bias)
        return built.eval()
