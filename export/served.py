"""The network as it is served: normalisation in front, activation behind. Imports torch only."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from export.errors import CaptureError
from models.card import Activation, Preprocessing
from models.classifier import PoolingClassifier

OUTPUTS = ("logits", "probabilities", "embedding", "cam", "cam_classes")  # of Served, in order
_ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "softmax": lambda logits: logits.softmax(1),
    "sigmoid": torch.sigmoid,
    "none": lambda logits: logits.clone(),
}


@torch.library.custom_op("anypool::chosen_classes", mutates_args=())
def chosen_classes(probabilities: Tensor, classes: Tensor) -> Tensor:
    """Classes (n, m), -1-j replaced by the j-th most probable one, of probabilities (n, k).

    One operator, since only the graph can say how many need ranking: to sort a thousand classes
    that nobody asked for takes as long as a twentieth of a small image.
    """
    _, ranking = torch.sort(probabilities, stable=True, dim=1, descending=True)  # (n, k)
    ranked = ranking.gather(1, (-1 - classes).clamp(min=0))  # (n, m)
    return torch.where(classes < 0, ranked, classes)


@chosen_classes.register_fake
def _(probabilities: Tensor, classes: Tensor) -> Tensor:
    return torch.empty_like(classes)


class Served(nn.Module):
    """A network with normalisation in front and activation behind, in evaluation mode.

    pixels uint8 (n, h, w, c) to logits (n, k), probabilities (n, k); where the logits come from a
    linear layer, also embedding (n, f), what goes into it; and where the network is a
    PoolingClassifier that explains itself, with classes int64 (n, m), also cam (n, m, h', w'), maps
    of those classes, and cam_classes (n, m), which they are: class -1-j is the j-th most probable.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        preprocessing: Preprocessing,
        activation: Activation = "softmax",
    ) -> None:
        super().__init__()
        self.network = network
        self.activation = _ACTIVATIONS[activation]
        self.last: str | None = None  # the layer that gives the logits; see find_last
        self.register_buffer("mean", torch.tensor(preprocessing.mean).reshape(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(preprocessing.std).reshape(1, -1, 1, 1))
        self.eval()

    @property
    def explains(self) -> bool:
        """Whether there are class activation maps."""
        return isinstance(self.network, PoolingClassifier) and self.network.explains

    def normalised(self, pixels: Tensor) -> Tensor:
        """What the network gets: uint8 (n, h, w, c) to float32 (n, c, h, w)."""
        x = pixels.permute(0, 3, 1, 2).to(torch.float32)  # (n, c, h, w)
        x = x.contiguous()  # or torch keeps channels last, and x.view(n, -1) fails later on
        return (x - self.mean) / self.std

    def forward(self, pixels: Tensor, classes: Tensor | None = None) -> tuple[Tensor, ...]:
        x = self.normalised(pixels)  # (n, c, h, w)
        if not isinstance(self.network, PoolingClassifier):
            return self._of_any_network(x)
        if classes is None or not self.network.explains:
            embedding = self.network.embed(x)  # (n, f)
            logits: Tensor = self.network.head(embedding)  # (n, k)
            return logits, self.activation(logits), embedding
        features = self.network.backbone(x)  # (n, f, h', w')
        embedding = self.network.pooled(features)  # (n, f)
        logits = self.network.head(embedding)  # (n, k)
        probabilities = self.activation(logits)  # (n, k)
        chosen = chosen_classes(probabilities, classes)  # (n, m)
        maps = self.network.class_maps(features, chosen)  # (n, m, h', w')
        return logits, probabilities, embedding, maps, chosen

    def find_last(self, pixels: Tensor) -> None:
        """Find the linear layer whose output the logits are, by running the network once."""
        outputs: dict[int, str] = {}
        names = {layer: name for name, layer in self.network.named_modules()}

        def note(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if isinstance(layer, nn.Linear) and inputs and inputs[0].dim() == 2:
                outputs[id(output)] = names[layer]
                kept.append(output)  # or another could get its id

        kept: list[Tensor] = []
        handles = [layer.register_forward_hook(note) for layer in names]
        try:
            with torch.no_grad():
                logits = logits_of(self.network(self.normalised(pixels)))
        finally:
            for handle in handles:
                handle.remove()
        self.last = outputs.get(id(logits))

    def _of_any_network(self, x: Tensor) -> tuple[Tensor, ...]:
        if self.last is None:
            logits = logits_of(self.network(x))  # (n, k)
            return logits, self.activation(logits)
        seen: list[Tensor] = []
        layer = self.network.get_submodule(self.last)
        handle = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            logits = logits_of(self.network(x))  # (n, k)
        finally:
            handle.remove()
        return logits, self.activation(logits), seen[-1].clone()  # an output of its own


def logits_of(answer: Any) -> Tensor:
    """The logits (n, k) in what a network's forward gives.

    That is a tensor, (n, k) or (n, k, 1, 1); or it is the first of several, as with auxiliary
    classifiers; or it is called logits, as in transformers. Raises CaptureError.
    """
    found = answer
    if isinstance(answer, Mapping):
        found = answer.get("logits")
    elif not isinstance(answer, Tensor) and hasattr(answer, "logits"):
        found = answer.logits
    elif isinstance(answer, tuple | list) and answer:
        found = answer[0]
    if not isinstance(found, Tensor):
        raise CaptureError(
            f"forward gives {type(answer).__name__}; let it give the logits, a tensor (n, classes)"
        )
    if found.dim() == 4 and tuple(found.shape[2:]) == (1, 1):
        found = found.flatten(1)
    if found.dim() != 2:
        raise CaptureError(
            f"forward gives a tensor of {found.dim()} dimensions, {tuple(found.shape)}; let it "
            "give the logits, (n, classes): pool over height and width first"
        )
    return found.to(torch.float32)
