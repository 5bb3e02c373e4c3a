"""The networks of torchvision and timm, as `anypool export tests/zoo/networks.py:NAME` takes them.

Every attribute `tv_NAME` and `timm_NAME` is a function that builds that network: random weights,
the same each time, made to look trained. They are made when asked for.
"""

import re
import zlib
from collections.abc import Callable
from fnmatch import fnmatchcase
from functools import partial

import torch
from torch import nn

from tests.zoo.trained import look_trained

# Of torchvision's classifiers these are no CNNs; of the others the largest comes last.
_ATTENTION = ("vit_*", "swin_*", "maxvit_*")
_LARGEST = "tv_regnet_y_128gf"

# One small network of each family of CNNs in timm.
TIMM = """
resnet18d resnetblur18 resnetaa34d ecaresnet26t seresnet18 resnet50_gn resnetrs50
resnetv2_18 resnetv2_50x1_bit resnest14d res2net50_14w_8s skresnet18 legacy_seresnet18
dla34 dpn68 densenet121 densenetblur121d vovnet39a legacy_xception xception41
inception_v3 inception_v4 inception_resnet_v2 inception_next_atto nasnetalarge pnasnet5large
mobilenetv1_100 mobilenetv2_035 mobilenetv3_small_050 mobilenetv4_conv_small_035 fbnetv3_b
lcnet_035 hardcorenas_a efficientnet_b0 tf_efficientnet_b0 efficientnet_cc_b0_4e
efficientnetv2_rw_t mixnet_s mnasnet_small fbnetc_100 spnasnet_100 tinynet_e rexnet_100
ghostnet_050 repghostnet_050 hrnet_w18_small regnetx_002 regnetz_005 nf_resnet26 eca_nfnet_l0
repvgg_a0 gernet_s mobileone_s0 gcresnext26ts cspresnet50 darknet17 cs3darknet_focus_s
selecsls42b tresnet_m hgnet_tiny hgnetv2_b0 convnext_atto convnextv2_atto convmixer_768_32
rdnet_tiny repvit_m0_9 starnet_s050 fasternet_t0 fastvit_t8 focalnet_tiny_srf poolformer_s12
convformer_s18 mambaout_femto
"""


def names() -> list[str]:
    """All networks: every convolutional classifier of torchvision, then those of timm."""
    from torchvision import models

    found = [name for name in models.list_models(module=models) if not _attends(name)]
    ours = sorted((f"tv_{name}" for name in found), key=lambda name: (name == _LARGEST, name))
    return ours + [f"timm_{identifier(name)}" for name in TIMM.split()]


def identifier(name: str) -> str:
    """As Python and an artifact may be called: `a.b-c` becomes `a_b_c`."""
    return re.sub(r"[^a-z0-9_]", "_", name.lower())


def build(name: str) -> nn.Module:
    """The network of that name, always the same. Raises ZooError when it cannot run."""
    library, _, model = name.partition("_")
    seed = zlib.crc32(name.encode())
    torch.manual_seed(seed)
    make = _from_torchvision if library == "tv" else _from_timm
    return look_trained(make(model), seed)


def __getattr__(name: str) -> Callable[[], nn.Module]:
    if name.startswith(("tv_", "timm_")):
        return partial(build, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _attends(name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in _ATTENTION)


def _from_torchvision(name: str) -> nn.Module:
    from torchvision import models

    network: nn.Module = models.get_model(name, weights=None)
    return network


def _from_timm(name: str) -> nn.Module:
    import timm

    known = {identifier(model): model for model in timm.list_models()}
    network: nn.Module = timm.create_model(known[name], pretrained=False)
    return network
