"""The README lists every setting, route, command and error, with the right defaults."""

import re
from contextlib import closing
from pathlib import Path

import pytest

from service import errors
from service.app import create_app
from service.cli import COMMANDS
from service.metrics import Metrics
from service.ray_serve import RaySettings
from service.scheduler import Limits, Scheduler
from service.settings import PREFIX, Settings
from service.shares import Shares

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_listed(name: str) -> None:
    row = next(
        (r for r in README.splitlines() if r.startswith(f"| `{PREFIX}{name.upper()}`")), None
    )
    assert row is not None, f"the README does not list {name}"
    field = Settings.model_fields[name]
    if isinstance(field.default, int | float | str):
        default = f"`{field.default}`" if field.default != "" else "none"
        assert default in row, f"{row}: the default is {default}"


@pytest.mark.parametrize("name", sorted({*RaySettings.model_fields} - {*Settings.model_fields}))
def test_every_argument_on_ray_is_listed(name: str) -> None:
    default = RaySettings.model_fields[name].default
    (row,) = (r for r in README.splitlines() if r.startswith("|") and f"`{name}`" in r)
    assert str("none" if default is None else default) in row.split("|")[2]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_listed(name: str) -> None:
    assert f"anypool {name}" in README


@pytest.mark.parametrize("path", create_app().openapi()["paths"])
def test_every_route_is_listed(path: str) -> None:
    assert f"`{path}`" in README or f" {path}`" in README


def leaves(kind: type[errors.AnypoolError]) -> list[type[errors.AnypoolError]]:
    below = [leaf for child in kind.__subclasses__() for leaf in leaves(child)]
    return below or [kind]


@pytest.mark.parametrize("kind", leaves(errors.AnypoolError))
def test_every_error_is_listed(kind: type[errors.AnypoolError]) -> None:
    row = next((r for r in README.splitlines() if f"`{kind.type}`" in r), None)
    assert row is not None
    assert str(kind.status) in row


def metrics() -> list[str]:
    found = Metrics()
    with closing(Scheduler(1, Limits(queue_pixels=1, batch_pixels=1))) as scheduler:
        found.watch(scheduler)
        found.watch_models([])
        found.watch_bodies(Shares(1))
        found.watch_readiness(bool)
        names = re.findall(r"^# TYPE (anypool_\w+) ", found.text().decode(), re.MULTILINE)
    return [name for name in names if not name.endswith("_created")]


@pytest.mark.parametrize("name", metrics())
def test_every_metric_is_listed(name: str) -> None:
    assert any(row.startswith(f"| `{name}`") for row in README.splitlines())


def test_no_metric_is_listed_that_does_not_exist() -> None:
    assert set(re.findall(r"anypool_[a-z_]+", README)) <= {*metrics()}


TESTS = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.rglob("*.py"))


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(test_\w+)`", README))))
def test_every_test_that_is_named_exists(name: str) -> None:
    assert f"def {name}(" in TESTS


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`(tests/[\w/]+\.py)`", README))))
def test_every_test_file_that_is_named_exists(path: str) -> None:
    assert (Path(__file__).parent.parent / path).exists()
