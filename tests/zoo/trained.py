"""Make a network of random weights answer as a trained one might: nothing in it may hide.

A fresh network hides much. Its BatchNorms do nothing, its residual branches are multiplied with 0
or 10⁻⁶, its biases are 0, and without normalisation its logits hardly depend on the image. A graph
that got any of that wrong would still agree with torch.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle, islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

_SIDES = ((288, 320), (224, 224), (256, 256), (384, 384), (512, 512))  # the first that works
_BLOBS = (12, 6, 9, 7)
# How far biases are above 0, in spreads: with five of six ReLUs open, rounding does not grow from
# layer to layer. With all at 0 a deep network is chaotic: torch in float32 and in float64 disagree.
_OPEN = 1.0
_INVISIBLE = 1e-3  # smaller constants are meant to switch a branch off at first
_SHIFTS = ("bias", "beta", "tau")


class ZooError(ValueError):
    """A network that cannot be made ready; the message says why."""


def look_trained(network: nn.Module, seed: int, channels: int = 3) -> nn.Module:
    """Randomise and calibrate `network` in place, and return it in evaluation mode.

    Raises ZooError when it runs at none of the sizes that are tried.
    """
    network.eval()
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        _wake(network, random)
        norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
        with _measured(norms, random), _levelled(network, _OPEN if norms else 0.0):
            _run(network, channels, seed)
    return network


def images(seed: int, n: int, channels: int, height: int, width: int) -> Tensor:
    """Normalised images (n, c, h, w): blobs of 6 to 12 a side under noise."""
    random = torch.Generator().manual_seed(seed)
    smooth = []
    for blobs in islice(cycle(_BLOBS), n):
        colours = torch.randn((1, channels, blobs, blobs), generator=random)
        smooth.append(F.interpolate(colours, (height, width), mode="bilinear"))
    noise = torch.randn((n, channels, height, width), generator=random)
    return torch.cat(smooth) * 1.3 + noise * 0.3


def _uniform(like: Tensor, low: float, high: float, random: torch.Generator) -> Tensor:
    return torch.rand(like.shape, generator=random) * (high - low) + low


def _normal(like: Tensor, std: float, random: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=random) * std


def _wake(network: nn.Module, random: torch.Generator) -> None:
    """Give every parameter that is one number throughout a value for each channel."""
    of_norms = {p for m in network.modules() if isinstance(m, _BatchNorm) for p in m.parameters()}
    for name, parameter in network.named_parameters():
        value = parameter.flatten()[0].item()
        if not bool((parameter == value).all()):
            continue
        if name.rpartition(".")[2].endswith(_SHIFTS) and value == 0:
            opened = _OPEN if parameter in of_norms else 0
            parameter.copy_(_normal(parameter, 0.1, random) + opened)
        elif parameter in of_norms:
            parameter.copy_(_uniform(parameter, 0.7, 1.3, random))
        elif abs(value) < _INVISIBLE:
            parameter.copy_(_uniform(parameter, 0.2, 0.5, random))
        else:
            parameter.copy_(value * _uniform(parameter, 0.7, 1.3, random))


@contextmanager
def _measured(norms: list[_BatchNorm], random: torch.Generator) -> Iterator[None]:
    """Within, a BatchNorm takes its statistics from what it first gets, and not quite those.

    Its variance is that of the image that varies most: with the mean of all images, what is a
    little larger in one of them grows from layer to layer.
    """
    measured: set[nn.Module] = set()

    def measure(norm: _BatchNorm, inputs: tuple[Tensor, ...]) -> None:
        if norm in measured or norm.running_mean is None or norm.running_var is None:
            return
        measured.add(norm)
        x = inputs[0].flatten(2)  # (n, c, h·w)
        mean = x.mean((0, 2))  # (c,)
        variance = (x - mean[:, None]).square().mean(2).amax(0)  # (c,)
        variance = variance.clamp(min=0.05 * variance.mean().item())  # dead channels may wake
        norm.running_mean.copy_(mean + _normal(mean, 0.1, random) * variance.sqrt())
        norm.running_var.copy_(variance * _uniform(variance, 0.7, 1.4, random))

    hooks = [norm.register_forward_pre_hook(measure) for norm in norms]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _levelled(network: nn.Module, opened: float) -> Iterator[None]:
    """Within, a layer's weights are scaled when it first runs, so that its outputs vary by 1.

    Without BatchNorm nothing else would (Mishkin, Matas, "All you need is a good init", ICLR 2016).
    opened: what is added to the biases of convolutions that have some
    """
    levelled: set[nn.Module] = set()

    def level(layer: nn.Module, _: Any, y: Tensor) -> Tensor | None:
        spread = y.std()
        if layer in levelled or not spread > 1e-8:
            return None
        levelled.add(layer)
        for parameter in layer.parameters():
            parameter.div_(spread)
        if not isinstance(layer, nn.Conv2d) or layer.bias is None:
            return y / spread
        layer.bias.add_(opened)
        return y / spread + opened

    layers = [m for m in network.modules() if type(m) in (nn.Conv2d, nn.Linear)]
    hooks = [layer.register_forward_hook(level) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _run(network: nn.Module, channels: int, seed: int) -> None:
    """Run the network on images of the first size that works."""
    problem: Exception | None = None
    for height, width in _SIDES:
        try:
            network(images(seed, len(_BLOBS), channels, height, width))
        except Exception as exc:  # the author's code may raise what it likes
            problem = exc
        else:
            return
    raise ZooError(f"the network runs at none of {_SIDES}: {problem}") from problem


def spread(network: Callable[[Tensor], Tensor], channels: int = 3) -> tuple[float, float]:
    """How much logits of two images differ, relative to the largest, and that largest logit."""
    height, width = _SIDES[1]
    with torch.no_grad():
        first, second = (network(images(seed, 1, channels, height, width)) for seed in (1001, 1002))
    largest = torch.cat([first, second]).abs().max().item()
    return (first - second).abs().max().item() / max(largest, 1e-30), largest
