"""Bad input of every kind: never a 500, never a hang, never a crash, and the next answer is right.

`make fuzz MINUTES=30` tries the same for longer.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.e2e.server import Server
from tests.fuzz.driver import ROOMY, TIGHT, Driver, Input, load, regressions
from tests.fuzz.strategies import KINDS

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # of broken files
_EXAMPLES, _FRAMES = 150, 60  # of each kind; unfinished requests take a second or two


@pytest.fixture(scope="module")
def tight(store: Path) -> Iterator[Driver]:
    """A server with small limits, which are often met."""
    with Server(store, "--model", "seed_cnn", *TIGHT.options()) as server:
        yield Driver(server, TIGHT)


@pytest.fixture(scope="module")
def roomy(store: Path) -> Iterator[Driver]:
    """A server with the default limits."""
    with Server(store, "--model", "seed_cnn", *ROOMY.options()) as server:
        yield Driver(server, ROOMY)


@pytest.mark.parametrize("path", regressions(), ids=lambda path: path.stem)
def test_what_failed_once_fails_no_more(tight: Driver, roomy: Driver, path: Path) -> None:
    tried = load(path)
    for driver in (tight, roomy) if tried.kind != "framing" else (tight,):
        _, finding = driver.try_(tried)
        assert finding is None, finding.why


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_bad_input_gets_the_answer_promised_and_does_no_harm(tight: Driver, kind: str) -> None:
    @settings(
        max_examples=_FRAMES if kind == "framing" else _EXAMPLES,
        phases=[Phase.generate],  # shrinking would take a server's time
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(KINDS[kind])
    def bears(tried: Input) -> None:
        _, finding = tight.try_(tried)
        assert finding is None, finding.why

    bears()


@pytest.mark.parametrize("length", [b"Content-Length: 5", b"Content-Length: 0"])
def test_a_request_of_two_lengths_is_the_last_of_its_connection(
    roomy: Driver, length: bytes
) -> None:
    chunked = b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
    answers, _ = roomy.try_(Input("framing", chunked + length + b"\r\n\r\n1\r\nx\r\n0\r\n\r\n"))
    assert [answer.status for answer in answers] == [415]
    answers, _ = roomy.try_(Input("framing", chunked + b"\r\n1\r\nx\r\n0\r\n\r\n"))  # the control
    assert [answer.status for answer in answers] == [415, 200]
