"""`anypool serve`"""

import argparse
import sys
from importlib.util import find_spec
from typing import Any

from pydantic import ValidationError

from models.card import Card, CardError
from service import cuda
from service.folders import StoreError, check_inside, default_model, find, read_canvases
from service.keys import KeysError, read_keys
from service.settings import PREFIX, Settings
from service.supervisor import serve

_WATCH_S = 2.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One option for each setting."""
    for name, field in Settings.model_fields.items():
        default = field.get_default(call_default_factory=True)
        variable = f"{PREFIX}{name.upper()}"
        shown = variable if default in (None, "") else f"{variable}, {default}"
        switch: dict[str, Any] = {"nargs": "?", "const": True} if default is False else {}
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            metavar="VALUE",
            default=argparse.SUPPRESS,
            help=f"{field.description} [{shown}]".replace("%", "%%"),
            **switch,
        )
        if default is True:
            parser.add_argument(f"--no-{name.replace('_', '-')}", dest=name, action="store_false",
                                default=argparse.SUPPRESS, help=f"without: {field.description}"
                                .replace("%", "%%"))  # fmt: skip
    parser.add_argument("--watch", dest="watch_s", action="store_const", const=_WATCH_S,
                        default=argparse.SUPPRESS,
                        help=f"the same as --watch-s {_WATCH_S:g}")  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Check that there is something to serve, then serve it."""
    given: dict[str, Any] = {k: v for k, v in vars(options).items() if k in Settings.model_fields}
    try:
        settings = Settings(**given)
    except ValidationError as exc:
        for error in exc.errors():
            name = str(error["loc"][0])
            print(f"anypool serve: --{name.replace('_', '-')}: {error['msg']}", file=sys.stderr)
        return 2
    if settings.otel_endpoint is not None and not _has_otel():
        print("anypool serve: --otel-endpoint: traces need OpenTelemetry. "
              "Run: pip install 'anypool[otel]'", file=sys.stderr)  # fmt: skip
        return 2
    if settings.provider == "cuda" and (problem := cuda.problem()) is not None:
        print(f"anypool serve: --provider cuda: {problem}", file=sys.stderr)
        return 1
    try:
        _check(settings)
        if settings.api_keys_file is not None:
            read_keys(settings.api_keys_file)
    except (StoreError, CardError, KeysError) as exc:
        print(f"anypool serve: {exc}", file=sys.stderr)
        return 1
    try:
        return serve(settings)
    except OSError as exc:
        print(f"anypool serve: {exc}", file=sys.stderr)
        return 1


def _has_otel() -> bool:
    try:
        return find_spec("opentelemetry.exporter.otlp.proto.http.trace_exporter") is not None
    except ModuleNotFoundError:
        return False


def _check(settings: Settings) -> None:
    """Raise StoreError or CardError when it is plain that the service would never be ready."""
    found = find(settings.artifacts)
    name = default_model(sorted(found), settings.model, settings.artifacts)
    if settings.canvases is not None:
        read_canvases(settings.canvases, sorted(found))
    problem: StoreError | CardError | None = None
    for folder in found[name].values():
        try:
            check_inside(settings.artifacts, folder)
            Card.load(folder / "card.json")
            return
        except (StoreError, CardError) as exc:
            problem = exc
    if problem is not None:
        raise problem
