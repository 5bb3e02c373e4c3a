"""Which digit each image shows, according to torch and according to the service."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import torch
from torch import Tensor, nn

from tests.digits.cnn import name_of, normalised
from tests.digits.data import Digits, png

_TOGETHER = 48  # images in a request
_CLIENTS = 4


@dataclass(frozen=True, slots=True)
class Answers:
    """The most probable class of each image, int64 (n,), and how probable it is, (n,)."""

    classes: Tensor
    probabilities: Tensor

    @classmethod
    def of(cls, logits: Tensor) -> "Answers":
        """Those of logits (n, k)."""
        probabilities, classes = logits.softmax(1).max(1)
        return cls(classes, probabilities)

    def right(self, digits: Digits) -> int:
        """How many are what the digits show."""
        return int((self.classes == digits.labels).sum())


@torch.no_grad()
def torch_logits(network: nn.Module, digits: Digits) -> Tensor:
    """What torch itself says: logits (n, 10)."""
    logits: Tensor = network(normalised(digits.images))
    return logits


def ask(url: str, pool: str, sets: Sequence[Digits]) -> list[Answers]:
    """What the service at that address says of sets of digits, each set of another size.

    Sizes are shuffled, so that a request holds images of all of them. Raises httpx.HTTPError when
    a request fails, and AssertionError when an image does.
    """
    files = [png(image) for digits in sets for image in digits.images]
    order = torch.randperm(len(files), generator=torch.Generator().manual_seed(0)).tolist()
    requests = [order[first : first + _TOGETHER] for first in range(0, len(order), _TOGETHER)]
    classes = torch.zeros(len(files), dtype=torch.int64)
    probabilities = torch.zeros(len(files))
    with httpx.Client(base_url=url, timeout=120) as client, ThreadPoolExecutor(_CLIENTS) as threads:

        def send(chosen: list[int]) -> list[dict[str, Any]]:
            return _classify(client, name_of(pool), [files[i] for i in chosen])

        for chosen, results in zip(requests, threads.map(send, requests), strict=True):
            for i, result in zip(chosen, results, strict=True):
                assert "error" not in result, result
                (best,) = result["predictions"]
                classes[i], probabilities[i] = best["index"], best["probability"]
    counts = [len(digits) for digits in sets]
    parts = zip(torch.split(classes, counts), torch.split(probabilities, counts), strict=True)
    return [Answers(*part) for part in parts]


def _classify(client: httpx.Client, model: str, files: Sequence[bytes]) -> list[dict[str, Any]]:
    answer = client.post(
        f"/v1/models/{model}/classify",
        params={"resize": "native", "top_k": 1},
        files=[("files", (f"{i}.png", data, "image/png")) for i, data in enumerate(files)],
    )
    answer.raise_for_status()
    results: list[dict[str, Any]] = answer.json()["results"]
    return results
