"""The shape that all our networks share: backbone, pool, head."""

import torch
from torch import Tensor, nn

from models.pool import Head


class PoolingClassifier(nn.Module):
    """Classify images of any size: features, then pooling to a fixed length, then a linear head.

    backbone: images (n, c, h, w) to features (n, f, h', w')
    pool: features to (n, f, oh, ow), whatever h' and w' are
    head: the flattened pool (n, f·oh·ow) to logits (n, k); nn.Identity if those are the logits
    """

    def __init__(self, backbone: nn.Module, pool: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.pool = pool
        self.head = head

    def embed(self, x: Tensor) -> Tensor:
        """The pooled vector, which says what is in the image: (n, c, h, w) to (n, f·oh·ow)."""
        features: Tensor = self.backbone(x)  # (n, f, h', w')
        return self.pooled(features)

    def pooled(self, features: Tensor) -> Tensor:
        """Features (n, f, h', w') to the pooled vector (n, f·oh·ow)."""
        pooled: Tensor = self.pool(features)  # (n, f, oh, ow)
        return pooled.flatten(1)  # (n, f·oh·ow)

    def forward(self, x: Tensor) -> Tensor:
        """Logits: (n, c, h, w) to (n, k)."""
        logits: Tensor = self.head(self.embed(x))  # (n, k)
        return logits

    @property
    def explains(self) -> bool:
        """Whether `class_maps` works: the pool knows where its cells come from, the head is linear.

        A linear layer of another kind than torch's would do, but is not known to be one; nor is a
        subclass known to do what `class_maps` explains.
        """
        ours = all(
            getattr(type(self), name) is getattr(PoolingClassifier, name)
            for name in ("embed", "pooled", "forward")
        )
        linear = type(self.head) in (nn.Linear, nn.Identity)
        return ours and linear and isinstance(self.pool, Head)

    def class_maps(self, features: Tensor, classes: Tensor) -> Tensor:
        """Class activation maps: features (n, f, h', w'), classes (n, m) to maps (n, m, h', w').

        How much each place adds to a class's logit. Whatever the pooling, the mean of a map over
        space is the logit without its bias; for average pooling these are the maps of Zhou et
        al., "Learning Deep Features for Discriminative Localization", CVPR 2016, and for maximum,
        GeM, L_p and pyramids those of HiResCAM (Draelos, Carin, "Use HiResCAM instead of
        Grad-CAM", 2020).
        """
        assert isinstance(self.pool, Head)  # `explains` says so
        cells = self.pool.maps(features)  # oh·ow times (n, f, h', w')
        if isinstance(self.head, nn.Linear):
            weights = self.head.weight  # (k, f·cells)
        else:
            weights = torch.eye(cells[0].shape[1] * len(cells)).to(features)  # (k, f·cells)
        of_cell = weights.reshape(len(weights), -1, len(cells)).unbind(2)  # each (k, f)
        maps = [_weighed(cell, w[classes]) for cell, w in zip(cells, of_cell, strict=True)]
        return sum(maps[1:], start=maps[0])  # (n, m, h', w')


def _weighed(x: Tensor, weights: Tensor) -> Tensor:
    """Sums over the channels of x (n, f, h, w), by weights (n, m, f): (n, m, h, w)."""
    # Row by row: with channels last ONNX Runtime may move all before it to channels last too, to
    # spare a transposition, and that averages large maps less exactly.
    maps = weights.unsqueeze(1) @ x.permute(0, 2, 1, 3)  # (n, h, m, w)
    return maps.permute(0, 2, 1, 3)
