"""Networks by name: `register` adds one, `get` finds one, `names` lists them.

A network of your own needs a module that calls `register(Network(…))`, as models/networks.py does;
`anypool export NAME --import MODULE` imports it. To export one network, `anypool export
net.py:build` is simpler.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from models.card import Activation, Label, Licence, Name, Preprocessing
from models.classifier import PoolingClassifier
from models.weights import load_into


@dataclass(frozen=True, slots=True)
class Network:
    """A network that can be exported by name.

    build: makes it, with the weights it comes with, in evaluation mode
    rename: our name for a tensor of the state dicts that others publish for this architecture
    labels: one for each logit
    pooling: its pooling layers in words, for the card
    """

    name: str
    build: Callable[[], PoolingClassifier]
    labels: Callable[[], tuple[Label, ...]]
    preprocessing: Preprocessing
    pooling: str
    licence: Licence
    rename: Callable[[str], str] = str
    activation: Activation = "softmax"


class UnknownNetworkError(ValueError):
    """No network has that name; the message lists those that exist."""


_networks: dict[str, Network] = {}
_name: TypeAdapter[str] = TypeAdapter(Name)


def register(network: Network) -> None:
    """Add a network; raises ValueError when its name is taken or cannot name a folder and a URL."""
    check_name(network.name)
    if network.name in _networks:
        raise ValueError(f"a network named {network.name!r} is registered already")
    _networks[network.name] = network


def check_name(name: str) -> None:
    """Raise ValueError when a name cannot name a folder and a URL."""
    try:
        _name.validate_python(name)
    except ValidationError as exc:
        raise ValueError(
            f"{name!r} cannot name a network: use a-z, 0-9, '_', '.' and '-', at most 64"
        ) from exc


def import_networks(module: str) -> None:
    """Import a module that registers networks; raises UnknownNetworkError if it is not found."""
    try:
        import_module(module)
    except ImportError as exc:
        raise UnknownNetworkError(
            f"cannot import {module}: {exc}; its folder must be in PYTHONPATH"
        ) from exc


def get(name: str) -> Network:
    """The network of that name; raises UnknownNetworkError."""
    known = names()
    if name not in known:
        raise UnknownNetworkError(f"no network is named {name!r}; there are: {', '.join(known)}")
    return _networks[name]


def build(name: str, weights: Path | None = None) -> PoolingClassifier:
    """Make the network of that name, with its own weights or those of a file.

    Raises UnknownNetworkError, and WeightsError when the file does not fit, tensor for tensor.
    """
    network = get(name)
    built = network.build()
    if weights is not None:
        load_into(built, weights, name, network.rename)
    return built


def names() -> tuple[str, ...]:
    """All names, sorted."""
    import_module("models.networks")  # registers what we ship; importing it above would be a circle
    return tuple(sorted(_networks))
