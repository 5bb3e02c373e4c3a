"""The `anypool` command. Each subcommand imports what it needs when it is called."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before anything imports onnxruntime

OK, WRONG, MISUSED = 0, 1, 2

# name: (one line of help, module with add_arguments and run)
COMMANDS = {
    "serve": ("classify images over HTTP", "service.commands.serve"),
    "classify": ("classify image files, without a server", "service.commands.classify"),
    "export": ("make a verified ONNX artifact from a network", "export.cli"),
    "compare": ("see which pooling suits which image size", "export.compare"),
    "verify": ("check an artifact against torch's answers stored in it", "service.commands.verify"),
    "tune": ("find the fastest way to serve an artifact on this host", "service.commands.tune"),
    "inspect": ("show an artifact's card", "service.commands.inspect"),
    "health": ("ask a running service whether it is ready", "service.commands.health"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 done, 1 the thing checked is wrong, 2 used wrongly."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(
        prog="anypool",
        description="Exact, size-free serving of pooling-based image classifiers.",
        epilog="anypool COMMAND --help tells more.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    chosen = next((word for word in arguments if word in COMMANDS), None)
    for name, (line, module) in COMMANDS.items():
        subparser = commands.add_parser(
            name, help=line, description=f"{line[0].upper()}{line[1:]}."
        )
        if name == chosen:  # the others stay unimported: export needs torch, serve must not
            command = _load(module, parser)
            command.add_arguments(subparser)
            subparser.set_defaults(run=command.run)
    options = parser.parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except KeyboardInterrupt:
        return 130


def _load(module: str, parser: argparse.ArgumentParser) -> Any:
    try:
        return import_module(module)
    except ModuleNotFoundError as exc:
        extra = "export" if module.startswith("export") else "cpu"
        also = "" if extra == "export" else ", or gpu instead on a GPU host"
        parser.exit(MISUSED, f"anypool: {exc}. Run: pip install 'anypool[{extra}]'{also}\n")


if __name__ == "__main__":
    raise SystemExit(main())
