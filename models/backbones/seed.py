"""The small CNN of the course notes, up to its last pooling."""

from torch import Tensor, nn

from models.pool import POOLS


class SeedTrunk(nn.Module):
    """Conv, adaptive average to 4×4, conv: grey images (n, 1, h, w) to (n, 64, 4, 4)."""

    features = 64

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, kernel_size=3, stride=1, padding=1)
        self.pool = POOLS["adaptive_avg"](output_size=(4, 4))
        self.conv2 = nn.Conv2d(32, 64, kernel_size=3, stride=1, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)  # (n, 32, h, w)
        x = self.pool(x)  # (n, 32, 4, 4)
        features: Tensor = self.conv2(x)  # (n, 64, 4, 4)
        return features
