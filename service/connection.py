"""HTTP connections that slow or stubborn clients cannot hold: uvicorn's protocol, with five fixes.

uvicorn waits forever for a request's header and for a client to take its answer, after an early
answer (413, 503) goes on reading whatever the client still sends, keeps any number of idle
connections, and when it stops hangs up on connections whose request is on its way. The parser is
h11: the faster httptools drops the body of a request that offers to upgrade to HTTP/2, as Java's
client and `curl --http2` do.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import h11
from uvicorn import Config
from uvicorn.protocols.http.h11_impl import H11Protocol

LINGER_BYTES = 1_000_000  # read after an early answer, so that the client sees it and not a reset
LINGER_S = 2.0
_LAST_CALL_S = 1.0  # after the listener has closed, for requests that are on their way


class ConnectionConfig(Config):
    """uvicorn's configuration, and how long a request's header may take to arrive and an answer
    to leave, and how many connections there may be."""

    def __init__(
        self,
        app: str,
        *,
        header_timeout_s: float,
        answer_timeout_s: float,
        max_connections: int,
        **options: Any,
    ) -> None:
        super().__init__(app, http=Connection, **options)
        self.header_timeout_s = header_timeout_s
        self.answer_timeout_s = answer_timeout_s
        self.max_connections = max_connections


class _Transport:
    """A transport that, closed while the client still sends, listens for a while.

    Closed at once it would reset the connection, and the client might lose the answer.
    """

    def __init__(self, real: asyncio.Transport, unread: Callable[[], bool]) -> None:
        self._real = real
        self._unread = unread
        self._thrown_away: int | None = None  # bytes, once it lingers

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    @property
    def lingers(self) -> bool:
        """Answered and closed, though the client does not know yet."""
        return self._thrown_away is not None

    def is_closing(self) -> bool:
        return self.lingers or self._real.is_closing()

    def close(self) -> None:
        if not self._unread():
            self._real.close()
        elif not self.lingers:
            self._thrown_away = 0
            asyncio.get_running_loop().call_later(LINGER_S, self._real.close)

    def throw_away(self, data: bytes) -> None:
        """Take what nobody will read; a client that sends too much of it is cut off."""
        self._thrown_away = (self._thrown_away or 0) + len(data)
        if self._thrown_away > LINGER_BYTES:
            self._real.close()


class Connection(H11Protocol):
    """One client connection, with time limits for headers and answers and an end after early
    answers; it gives way to another one when it idles and there are too many."""

    transport: Any

    def __init__(self, config: ConnectionConfig, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        self._header_timeout_s = config.header_timeout_s
        self._header_alarm: asyncio.TimerHandle | None = None
        self._answer_timeout_s = config.answer_timeout_s
        self._answer_alarm: asyncio.TimerHandle | None = None
        self._max_connections = config.max_connections
        self._idle_since = time.monotonic()  # uvloop counts whole milliseconds

    def connection_made(self, transport: Any) -> None:
        super().connection_made(_Transport(transport, self._unread))  # type: ignore[arg-type]
        self._watch_header()
        self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        for alarm in (self._header_alarm, self._answer_alarm):
            if alarm is not None:
                alarm.cancel()

    def pause_writing(self) -> None:
        """The client takes its answer slower than it is written."""
        super().pause_writing()
        self._answer_alarm = self.loop.call_later(self._answer_timeout_s, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._answer_alarm is not None:
            self._answer_alarm.cancel()
            self._answer_alarm = None

    def data_received(self, data: bytes) -> None:
        if self.transport.lingers:
            self.transport.throw_away(data)
        else:
            super().data_received(data)
            self._watch_header()

    def shutdown(self) -> None:
        """Stop after the request in progress; one that is on its way still gets its answer."""
        if self.idle:
            self.loop.call_later(_LAST_CALL_S, super().shutdown)
        else:
            super().shutdown()

    def on_response_complete(self) -> None:
        self._idle_since = time.monotonic()  # uvloop counts whole milliseconds
        super().on_response_complete()
        self._watch_header()

    def _watch_header(self) -> None:
        """Run the alarm from a connection's start, or a later header's first byte, to its end."""
        begun = self.cycle is None or bool(self.conn.trailing_data[0])
        awaited = self.conn.their_state is h11.IDLE and begun
        if awaited and self._header_alarm is None:
            self._header_alarm = self.loop.call_later(self._header_timeout_s, self.transport.close)
        elif not awaited and self._header_alarm is not None:
            self._header_alarm.cancel()
            self._header_alarm = None

    def _make_room(self) -> None:
        """One connection too many: close the one that has idled longest, this one if none has."""
        if len(self.connections) <= self._max_connections:
            return
        idle = [c for c in self.connections if isinstance(c, Connection) and c.idle]
        longest = min(idle, key=lambda c: c._idle_since)
        longest.transport.abort()
        self.connections.discard(longest)  # at once: others may come before it is lost

    @property
    def idle(self) -> bool:
        """No request of this connection is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP; in the middle of a request its own answer comes no more."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:  # an answer was begun or given
            self.transport.close()

    def _unread(self) -> bool:
        return self.conn.their_state is h11.SEND_BODY

    def _unsupported_upgrade_warning(self) -> None:
        """An offer to upgrade is simply not taken; it is nothing to warn of."""
