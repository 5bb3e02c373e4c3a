"""A load test of variable-size images for Locust: `locust -f tests/load/locustfile.py`.

`make load` runs it without its web page. The parts come together in tests/load/harness.py.
"""

from typing import Any

from locust import User, events, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

from tests.load.forms import FORMS
from tests.load.harness import Harness
from tests.load.mixes import MIXES

HARNESSES: dict[Environment, Harness] = {}  # of this process: one
OPTIONS: dict[str, dict[str, Any]] = {
    "--mix": {"default": "web", "choices": list(MIXES), "help": "sizes of the pictures"},
    "--files": {"default": "", "help": "folder of image files to send instead"},
    "--count": {"default": 300, "type": int, "help": "different pictures"},
    "--seed": {"default": 0, "type": int, "help": "another seed, other pictures"},
    "--formats": {"default": "", "help": "jpeg, webp, png, with commas; else 70, 20 and 10 %%"},
    "--form": {"default": "raw", "choices": list(FORMS), "help": "raw body, multipart, or OIP v2"},
    "--together": {"default": 1, "type": int, "help": "images a request, unless raw"},
    "--loop": {
        "default": "open",
        "choices": ["open", "closed"],
        "help": "open: requests arrive whether or not there are answers, --pace a second for "
        "each user; closed: each user waits for its answer",
    },
    "--pace": {"default": 1.0, "type": float, "help": "arrivals a second for each user"},
    "--resize": {"default": "model", "help": "resize policy, and its size: limit:640"},
    "--model": {"default": "", "help": "model asked, if not the default"},
    "--connections": {"default": 500, "type": int, "help": "at most; the service takes 900"},
    "--timeout-s": {"default": 30.0, "type": float, "help": "for an answer, since it was due"},
    "--objective-ms": {
        "default": 1000.0,
        "type": float,
        "help": "99 of 100 requests are to be answered within that; 0 for no objective",
    },
    "--steps": {"default": 0, "type": int, "help": "first rate of tests/load/stepfile.py"},
    "--step-s": {"default": 15.0, "type": float, "help": "length of a step"},
    "--key": {"default": "", "help": "API key", "is_secret": True, "env_var": "ANYPOOL_KEY"},
    "--out": {"default": "build/load", "help": "folder of the report"},
}


def _options(parser: LocustArgumentParser) -> None:
    for name, option in OPTIONS.items():
        parser.add_argument(name, **option)


def _harness(environment: Environment, **_: Any) -> None:
    HARNESSES[environment] = Harness(environment)
    environment.harness = HARNESSES[environment]  # type: ignore[attr-defined]  # for stepfile.py


events.init_command_line_parser.add_listener(_options)
events.init.add_listener(_harness)


class Visitor(User):
    """A clock: when it strikes, a request is sent."""

    def on_start(self) -> None:
        self.arrivals = HARNESSES[self.environment].arrivals()

    @task
    def visit(self) -> None:
        HARNESSES[self.environment].visit(next(self.arrivals))
