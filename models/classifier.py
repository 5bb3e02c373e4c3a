"""The shape that all our networks share: backbone, pool, head."""

from torch import Tensor, nn


class PoolingClassifier(nn.Module):
    """Classify images of any size: features, then pooling to a fixed length, then a linear head.

    backbone: images (n, c, h, w) to features (n, f, h', w')
    pool: features to (n, f, oh, ow), whatever h' and w' are
    head: the flattened pool (n, f·oh·ow) to logits (n, k)
    """

    def __init__(self, backbone: nn.Module, pool: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.pool = pool
        self.head = head

    def embed(self, x: Tensor) -> Tensor:
        """The pooled vector, which says what is in the image: (n, c, h, w) to (n, f·oh·ow)."""
        features: Tensor = self.backbone(x)  # (n, f, h', w')
        pooled: Tensor = self.pool(features)  # (n, f, oh, ow)
        return pooled.flatten(1)  # (n, f·oh·ow)

    def forward(self, x: Tensor) -> Tensor:
        """Logits: (n, c, h, w) to (n, k)."""
        logits: Tensor = self.head(self.embed(x))  # (n, k)
        return logits
