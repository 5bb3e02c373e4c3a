"""What docker/ holds, parsed."""

from pathlib import Path
from typing import Any

import yaml

from service.settings import PREFIX, Settings

DOCKER = Path(__file__).parent.parent.parent / "docker"
DOCKERFILE = (DOCKER / "Dockerfile").read_text(encoding="utf-8")


def load(path: str) -> Any:
    """A YAML file below docker/."""
    return yaml.safe_load((DOCKER / path).read_text(encoding="utf-8"))


def check_variables(variables: dict[str, str]) -> None:
    """Fail unless each ANYPOOL_ variable is a setting that takes its value."""
    ours = {name: value for name, value in variables.items() if name.startswith(PREFIX)}
    given = {name.removeprefix(PREFIX).lower(): value for name, value in ours.items()}
    assert given
    assert set(given) <= set(Settings.model_fields)
    Settings.model_validate(given)


def targets() -> set[str]:
    """Names of the Dockerfile's stages."""
    return {line.rpartition(" ")[2] for line in DOCKERFILE.splitlines() if line.startswith("FROM ")}
