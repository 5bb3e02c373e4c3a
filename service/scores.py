"""What a network says of images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Maps:
    """Class activation maps of one image: what each place adds to the logits of m classes."""

    classes: NDArray[np.int64]  # (m,)
    values: NDArray[np.float32]  # (m, h', w')


@dataclass(frozen=True, slots=True)
class Scores:
    """What the network says of n images."""

    logits: NDArray[np.float32]  # (n, k)
    probabilities: NDArray[np.float32]  # (n, k)
    embedding: NDArray[np.float32] | None  # (n, f)
    ranking: NDArray[np.int64]  # (n, k), classes, the most probable first, ties by index
    maps: tuple[Maps, ...] | None = None  # of each image, if any was wanted

    @staticmethod
    def joined(parts: "Sequence[Scores]") -> "Scores":
        """The scores of several batches, without their maps."""
        embeddings = [part.embedding for part in parts if part.embedding is not None]
        return Scores(
            np.concatenate([part.logits for part in parts]),
            np.concatenate([part.probabilities for part in parts]),
            np.concatenate(embeddings) if len(embeddings) == len(parts) else None,
            np.concatenate([part.ranking for part in parts]),
        )

    def row(self, index: int) -> "Scores":
        """The scores of one image, as a batch of one."""
        return self.rows(slice(index, index + 1))

    def rows(self, at: slice) -> "Scores":
        """The scores of some images."""
        return Scores(
            self.logits[at],
            self.probabilities[at],
            None if self.embedding is None else self.embedding[at],
            self.ranking[at],
            None if self.maps is None else self.maps[at],
        )


def class_rows(classes: Sequence[Sequence[int]], n: int) -> NDArray[np.int64]:
    """Classes wanted of n images as one array (n, m), rows filled up with -1; m is 0 for none."""
    rows = np.full((n, max(map(len, classes), default=0)), -1, np.int64)
    for row, wanted in zip(rows, classes, strict=False):
        row[: len(wanted)] = wanted
    return rows


def maps_of(arrays: dict[str, NDArray[Any]], classes: Sequence[Sequence[int]]) -> Iterator[Maps]:
    """Of each image the maps it asked for, cut to its own size."""
    everywhere = arrays["cam"].shape[2:]
    for image, wanted in enumerate(classes):
        h, w = arrays["cam_sizes"][image] if "cam_sizes" in arrays else everywhere
        found = arrays["cam_classes"][image, : len(wanted)]
        yield Maps(found, arrays["cam"][image, : len(wanted), :h, :w])
