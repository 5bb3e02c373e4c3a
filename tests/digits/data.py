"""Handwritten digits at any size, as bytes a camera could have sent.

They are the 1797 of scikit-learn, 8×8 greys each: E. Alpaydin, C. Kaynak, "Optical Recognition of
Handwritten Digits", UCI Machine Learning Repository, CC BY 4.0.
"""

import io
from dataclasses import dataclass

import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.nn import functional as F

HELD_OUT = 450


@dataclass(frozen=True, slots=True)
class Digits:
    """Images uint8 (n, h, w), ink bright, and what they show, int64 (n,)."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def at(self, height: int, width: int) -> "Digits":
        """The same digits resized to exactly that, in whole greys as a file has them."""
        x = self.images[:, None].to(torch.float32)  # (n, 1, h, w)
        x = F.interpolate(x, (height, width), mode="bilinear", antialias=True)
        return Digits(x[:, 0].round().clamp(0, 255).to(torch.uint8), self.labels)


def load() -> tuple[Digits, Digits]:
    """The digits to train with and those held out, of each class its share; always the same."""
    known = load_digits()
    greys = (known.images * 255 / 16).round().astype("uint8")  # they count from 0 to 16
    parts = train_test_split(
        greys, known.target, test_size=HELD_OUT, random_state=0, stratify=known.target
    )
    train, held_out, train_labels, held_out_labels = (torch.from_numpy(part) for part in parts)
    return Digits(train, train_labels), Digits(held_out, held_out_labels)


def png(image: Tensor) -> bytes:
    """A grey PNG of an image uint8 (h, w)."""
    out = io.BytesIO()
    Image.fromarray(image.numpy()).save(out, "PNG")
    return out.getvalue()
