"""`anypool serve`"""

import argparse
import sys
from typing import Any

from pydantic import ValidationError

from models.card import Card, CardError
from service.folders import StoreError, default_model, find, read_canvases
from service.keys import KeysError, read_keys
from service.settings import PREFIX, Settings
from service.supervisor import serve


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One option for each setting."""
    for name, field in Settings.model_fields.items():
        default = field.get_default(call_default_factory=True)
        variable = f"{PREFIX}{name.upper()}"
        shown = variable if default is None else f"{variable}, {default}"
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            metavar="VALUE",
            default=argparse.SUPPRESS,
            help=f"{field.description} [{shown}]".replace("%", "%%"),
        )


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
    try:
        found = find(settings.artifacts)
        default_model(sorted(found), settings.model, settings.artifacts)
        if settings.canvases is not None:
            read_canvases(settings.canvases, sorted(found))
        if settings.api_keys_file is not None:
            read_keys(settings.api_keys_file)
        for versions in found.values():
            for folder in versions.values():
                Card.load(folder / "card.json")
    except (StoreError, CardError, KeysError) as exc:
        print(f"anypool serve: {exc}", file=sys.stderr)
        return 1
    try:
        return serve(settings)
    except OSError as exc:
        print(f"anypool serve: cannot listen on {settings.host}:{settings.port}: {exc}. "
              "Choose another --port", file=sys.stderr)  # fmt: skip
        return 1
