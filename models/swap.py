"""Another pooling for a trained network: same trunk, same classifier, no training.

Larger inputs favour other poolings than the one a network was trained with; this is how to try.
"""

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter, signature

import torch
from torch import Tensor, nn

from models.classifier import PoolingClassifier
from models.pool import POOLS, Head
from models.pool.class_channel import ClassChannelPool
from models.pool.global_avg import GlobalAvgPool

_FROM_NETWORK = ("channels", "classes")  # arguments that the network itself decides


class SwapError(ValueError):
    """A pooling that cannot take the old one's place; the message says why and what can."""


@dataclass(frozen=True, slots=True)
class Swap:
    """A pooling by name, with the arguments that were given for it."""

    pool: str
    arguments: Mapping[str, object]

    @classmethod
    def parse(cls, pool: str, arguments: Sequence[str]) -> "Swap":
        """From a command line: arguments are "p=3", "levels=(1, 2)"; raises SwapError."""
        if pool not in POOLS:
            raise SwapError(f"no pooling is named {pool!r}; there are: {', '.join(POOLS)}")
        known = _parameters(pool)
        values: dict[str, object] = {}
        for argument in arguments:
            name, equals, value = argument.partition("=")
            if not equals or name not in known:
                takes = f"{', '.join(known)}; write NAME=VALUE" if known else "no arguments"
                raise SwapError(f"{argument!r}: {pool} takes {takes}")
            values[name] = _value(value)
        for name, parameter in known.items():
            if parameter.default is Parameter.empty and name not in values:
                raise SwapError(f"{pool} needs an argument: {name}=VALUE")
        return cls(pool, values)

    def __str__(self) -> str:
        """As in Python, defaults included: "gem(p=3.0, eps=1e-06)"."""
        given = {
            name: self.arguments.get(name, parameter.default)
            for name, parameter in _parameters(self.pool).items()
        }
        return f"{self.pool}({', '.join(f'{name}={value}' for name, value in given.items())})"

    def apply(self, classifier: PoolingClassifier, images: Tensor) -> PoolingClassifier:
        """The same trunk and classifier around the new pooling, all in evaluation mode.

        A pooling with several cells gets the classifier's weights for each, divided by how many
        they are; one that gives a map is followed by the global average.
        images: (n, c, h, w), which the network takes. Raises SwapError.
        """
        head = classifier.head
        try:
            with torch.no_grad():
                features = classifier.eval().backbone(images)  # (n, f, h', w')
        except Exception as exc:  # the author's code may raise what it likes
            raise SwapError(f"the network fails on {tuple(images.shape)}: {exc}") from exc
        channels = features.shape[1]
        if not isinstance(head, nn.Linear) or head.in_features != channels:
            raise SwapError("only a linear classifier of one value a channel can be kept")
        offered = {"channels": channels, "classes": head.out_features}
        taken = signature(POOLS[self.pool]).parameters
        try:
            pool = POOLS[self.pool](
                **{name: value for name, value in offered.items() if name in taken},
                **self.arguments,
            ).eval()
            with torch.no_grad():
                cells = pool(features).shape[2:].numel()
                if isinstance(pool, Head) and len(pool.maps(features)) != cells:
                    raise ValueError("it has no fixed number of cells")
        except Exception as exc:  # torch raises what it likes of arguments it does not
            raise SwapError(f"{self} cannot be used here: {exc}") from exc
        if isinstance(pool, ClassChannelPool):
            with torch.no_grad():
                pool.conv.weight.copy_(head.weight[:, :, None, None])
                pool.conv.bias.copy_(  # type: ignore[union-attr]  # a Conv2d has one
                    torch.zeros(head.out_features) if head.bias is None else head.bias
                )
            return PoolingClassifier(classifier.backbone, pool, nn.Identity()).eval()
        if not isinstance(pool, Head):
            backbone = nn.Sequential(classifier.backbone, pool)
            return PoolingClassifier(backbone, GlobalAvgPool(), head).eval()
        return PoolingClassifier(classifier.backbone, pool, _spread(head, cells)).eval()


def _parameters(pool: str) -> dict[str, Parameter]:
    parameters = signature(POOLS[pool]).parameters
    known = {name: p for name, p in parameters.items() if name not in _FROM_NETWORK}
    return {name: p for name, p in known.items() if p.kind is not Parameter.VAR_KEYWORD
            and p.kind is not Parameter.VAR_POSITIONAL}  # fmt: skip


def _value(text: str) -> object:
    """A Python literal, or else the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError):
        return text


def _spread(head: nn.Linear, cells: int) -> nn.Linear:
    """The layer that gives the mean over the cells what `head` gives one: (n, f·cells) in."""
    wide = nn.Linear(head.in_features * cells, head.out_features, bias=head.bias is not None)
    with torch.no_grad():
        wide.weight.copy_(head.weight.repeat_interleave(cells, 1) / cells)
        if head.bias is not None:
            wide.bias.copy_(head.bias)
    return wide
