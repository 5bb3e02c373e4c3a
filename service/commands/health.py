"""`anypool health`"""

import argparse
import http.client
import sys

from service.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    settings = Settings()
    everywhere = settings.host in ("0.0.0.0", "::")  # noqa: S104  # compared, not bound
    host = "127.0.0.1" if everywhere else settings.host
    parser.add_argument("--host", default=host, help="(default: %(default)s)")
    parser.add_argument("--port", type=int, default=settings.port, help="(default: %(default)s)")
    parser.add_argument("--timeout-s", type=float, default=3.0, help="(default: %(default)s)")


def run(options: argparse.Namespace) -> int:
    """0 when /readyz answers 200."""
    connection = http.client.HTTPConnection(options.host, options.port, timeout=options.timeout_s)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        print(answer.read().decode())
    except OSError as exc:
        print(f"anypool health: http://{options.host}:{options.port}: {exc}", file=sys.stderr)
        return 1
    finally:
        connection.close()
    return 0 if answer.status == 200 else 1
