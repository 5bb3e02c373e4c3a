"""What the log line and the trace of a request tell of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from service.outcome import Outcome


@dataclass(slots=True)
class Facts:
    """One request. The envelope begins and ends it, the routes fill in what they know.

    Never what an image shows, nor what its file is called: both are the client's own.

    route: its template, for example /v1/models/{name}/classify
    client: the address; key: the name of the API key, if the service asks for one
    size: of the body as far as it was read, in bytes
    begun, ended: on the monotonic clock
    longest: seconds that any of the images spent in each phase, at most
    """

    request_id: str
    method: str
    path: str
    begun: float
    client: str | None = None
    key: str | None = None
    route: str | None = None
    status: int = 0
    size: int = 0
    model: str | None = None
    version: str | None = None
    images: int | None = None
    outcomes: Sequence[Outcome] = ()
    longest: Mapping[str, float] = field(default_factory=dict)
    ended: float = 0.0
    trace_id: str | None = None

    @property
    def pixels(self) -> int | None:
        """Network pixels that were admitted."""
        return sum(outcome.pixels for outcome in self.outcomes) if self.outcomes else None

    def fields(self) -> dict[str, object]:
        """What there is to log, by name; times in milliseconds."""
        known: dict[str, object | None] = {
            "request_id": self.request_id,
            "method": self.method,
            "path": self.path,
            "status": self.status,
            "route": self.route,
            "model": self.model,
            "version": self.version,
            "images": self.images,
            "pixels": self.pixels,
            "bytes": self.size,
            **{f"{name}_ms": _ms(seconds) for name, seconds in self.longest.items()},
            "total_ms": _ms(self.ended - self.begun),
            "client": self.client,
            "key": self.key,
            "trace_id": self.trace_id,
        }
        return {name: value for name, value in known.items() if value is not None}


def longest(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Seconds that any of the images spent in each phase, at most."""
    return {
        "decode": max(outcome.decoding for outcome in outcomes),
        "queue": max(outcome.queued for outcome in outcomes),
        "infer": max(outcome.inferring for outcome in outcomes),
    }


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 2)
