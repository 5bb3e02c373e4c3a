"""What a network says of images."""

from collections.abc import Sequence
from dataclasses import dataclass

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
