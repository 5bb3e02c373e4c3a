"""Global average pooling."""

from torch import Tensor, nn


class GlobalAvgPool(nn.Module):
    """Average every channel over the whole image.

    y[c] = mean over (i, j) of x[c, i, j]; (n, c, h, w) to (n, c, 1, 1).
    Source: Lin, Chen, Yan, "Network In Network", 2013. Good for: objects that fill the image; in
    large images a small object drowns in the background.
    """

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3), keepdim=True)  # (n, c, 1, 1)

    def maps(self, x: Tensor) -> list[Tensor]:
        """x itself: with a linear head, the class activation maps of Zhou et al., CVPR 2016."""
        return [x]
