"""Get a network from where it is: our registry, its author's Python file, or a saved program.

Runs in the process of capture, since to build a network is to run its author's code. Imports torch
and models only.
"""

import sys
from collections.abc import Callable
from importlib.machinery import PathFinder
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from traceback import format_exception_only
from types import ModuleType
from typing import Any

import torch
from torch import nn

from export.diagnosis import source_of
from export.errors import CaptureError
from export.recipe import NEEDS_TRUST, Recipe, kind_of
from models import registry
from models.classifier import PoolingClassifier
from models.swap import Swap
from models.weights import load_into

_OURS = ("models", "export", "service", "tests")
_ROOMY = (320, 320)  # height and width at which another pooling is tried on


def load(recipe: Recipe) -> nn.Module:
    """The network of a recipe, in evaluation mode, with its weights and its pooling.

    Raises CaptureError, WeightsError, UnknownNetworkError, SwapError.
    """
    kind = kind_of(recipe.origin)
    if kind == "registered":
        for module in recipe.modules:
            registry.import_networks(module)
        network: nn.Module = registry.build(recipe.origin, recipe.weights)
    else:
        network = _program(recipe) if kind == "program" else _from_file(recipe.origin)
        if recipe.weights is not None:
            load_into(network, recipe.weights, recipe.origin)
    if recipe.pool is not None:
        if not isinstance(network, PoolingClassifier):
            raise CaptureError(
                "--pool needs a network with a place for it: let build return "
                "models.classifier.PoolingClassifier(backbone, pool, head)"
            )
        swap = Swap.parse(recipe.pool, recipe.pool_arguments)
        images = torch.zeros((1, recipe.preprocessing.channels, *_ROOMY))
        network = swap.apply(network, images)
    return network.eval()


def _from_file(origin: str) -> nn.Module:
    path, _, name = origin.rpartition(":")
    module = _run_file(Path(path).resolve())
    found: Any = module
    try:
        for part in name.split("."):
            found = getattr(found, part)
    except AttributeError as exc:
        known = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise CaptureError(f"{path} has no {name}; there are: {', '.join(known)}") from exc
    network = found if isinstance(found, nn.Module) else _called(found, origin)
    if not isinstance(network, nn.Module):
        raise CaptureError(f"{origin} gives {type(network).__name__}, not a torch.nn.Module")
    return network


def _called(build: Callable[[], Any], origin: str) -> Any:
    try:
        return build()
    except Exception as exc:  # the author's code may raise what it likes
        raise CaptureError(f"{origin} fails{source_of(exc)}: {_said(exc)}") from exc


def _run_file(path: Path) -> ModuleType:
    """Import the author's file as its own folder would: what is ours gives way to what is theirs.

    Their folder may well have a package called `models`; ours of that name is in use here already.
    """
    sys.path.insert(0, str(path.parent))
    theirs = [name for name in _OURS if PathFinder.find_spec(name, [str(path.parent)])]
    for name in list(sys.modules):
        if name.partition(".")[0] in theirs:
            del sys.modules[name]
    spec = spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise CaptureError(f"{path} is not a Python file")
    module = module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except Exception as exc:  # the author's code may raise what it likes
        raise CaptureError(f"{path} cannot be imported{source_of(exc)}: {_said(exc)}") from exc
    return module


def _said(exc: Exception) -> str:
    return format_exception_only(exc)[-1].strip()


def _program(recipe: Recipe) -> nn.Module:
    if not recipe.trust:
        raise CaptureError(NEEDS_TRUST.format(recipe.origin))
    try:
        program = torch.export.load(recipe.origin)
    except Exception as exc:  # torch raises what it likes on foreign files
        raise CaptureError(f"{recipe.origin} cannot be loaded: {_said(exc)}") from exc
    return Program(program.module())


class Program(nn.Module):
    """A saved program as a network: it has no modes, and stays as it was captured."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def train(self, mode: bool = True) -> "Program":
        """Nothing changes: torch forbids it for exported programs."""
        self.training = False
        return self

    def forward(self, x: torch.Tensor) -> Any:
        return self.module(x)
