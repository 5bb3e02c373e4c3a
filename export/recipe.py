"""What one capture has to do, as it is handed to the process that does it."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from models.card import Activation, Preprocessing, SizeLimits

NEEDS_TRUST = (
    "{} is a saved program, and to load one can run any code that its maker put in: say --trust if "
    "you know who that is, or export from the Python file and its weights"
)
Kind = Literal["registered", "file", "program"]


def kind_of(origin: str) -> Kind:
    """What `origin` is: the name of a registered network, net.py:build, or a saved program."""
    if origin.endswith(".pt2"):
        return "program"
    path, _, _ = origin.rpartition(":")
    return "file" if path.endswith(".py") or origin.endswith(".py") else "registered"


class Recipe(BaseModel):
    """How to come by a network, and how it is served.

    origin: see kind_of; modules: to import first; trust: whether a saved program may be loaded
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    origin: str
    preprocessing: Preprocessing
    activation: Activation
    modules: tuple[str, ...] = ()
    weights: Path | None = None
    pool: str | None = None
    pool_arguments: tuple[str, ...] = ()
    trust: bool = False


class Found(BaseModel):
    """What capture found out.

    rounding: how far float32 is from float64 in torch itself, of the largest logit
    pooling: the last pooling in words, if it is a known one
    decisions: by each size of the grid, what forward decides otherwise there than for the example
    """

    limits: SizeLimits
    rounding: float
    pooling: str | None
    decisions: dict[str, list[str]]
