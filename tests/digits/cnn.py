"""A small CNN for digits of any size, once for each pooling. Importing this registers nothing."""

from typing import Any

import torch
from torch import Tensor, nn

from models.card import Preprocessing
from models.classifier import PoolingClassifier
from models.pool import POOLS, Head
from models.pool.global_avg import GlobalAvgPool
from models.weights import seeded

CLASSES, FEATURES = 10, 48
PREPROCESSING = Preprocessing(channels=1, mean=(127.5,), std=(127.5,), policy="native")
ARGUMENTS: dict[str, dict[str, Any]] = {
    "adaptive_avg": {"output_size": (3, 3)},
    "adaptive_max": {"output_size": (3, 3)},
    "attention": {"channels": FEATURES, "heads": 4},
    "class_channel": {"channels": FEATURES, "classes": CLASSES},
    "fractional_max": {"output_size": 3},
    "gated": {"channels": FEATURES},
    "spp": {"levels": (1, 2, 4)},
    "strided_conv": {"channels": FEATURES},
}


def name_of(pool: str) -> str:
    """What the network with that pooling is registered and served as."""
    return f"digits-{pool}"


def classifier(pool: str) -> PoolingClassifier:
    """The CNN that ends in that pooling, untrained, its random weights always the same.

    A pooling that gives a map is followed by the global average.
    """
    with seeded(0):
        layer: nn.Module = POOLS[pool](**ARGUMENTS.get(pool, {}))
        trunk = _trunk()
        if pool == "lp":  # a norm has no slope where all is 0, and needs no sign
            del trunk[-1]
        if not isinstance(layer, Head):
            trunk.append(layer)
            layer = GlobalAvgPool()
        cells = layer.eval()(torch.zeros(1, FEATURES, 16, 16)).shape[2:].numel()
        head = nn.Linear(FEATURES * cells, CLASSES) if pool != "class_channel" else nn.Identity()
        return PoolingClassifier(trunk, layer, head).eval()


def normalised(images: Tensor) -> Tensor:
    """Greys uint8 (n, h, w) to what the network takes, (n, 1, h, w), as PREPROCESSING says."""
    (mean,), (std,) = PREPROCESSING.mean, PREPROCESSING.std
    return (images[:, None].to(torch.float32) - mean) / std


def _trunk() -> nn.Sequential:
    """Grey images (n, 1, h, w) to features (n, FEATURES, h/4, w/4), rounded up.

    A feature sees 41 pixels across: most of a digit of 48. Of a digit of 14 there are 4×4.
    """
    return nn.Sequential(
        *_convolution(1, 16, kernel=5, stride=2),
        *_convolution(16, 32, stride=2),
        *_convolution(32, FEATURES),
        *_convolution(FEATURES, FEATURES),
        *_convolution(FEATURES, FEATURES),
        *_convolution(FEATURES, FEATURES),
    )


def _convolution(channels: int, out: int, kernel: int = 3, stride: int = 1) -> list[nn.Module]:
    layer = nn.Conv2d(channels, out, kernel, stride, kernel // 2)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")  # responses keep their strength
    return [layer, nn.ReLU()]
