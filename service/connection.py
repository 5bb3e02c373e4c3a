"""HTTP connections that slow or stubborn clients cannot hold: uvicorn's protocol, with three fixes.

uvicorn waits forever for a request's header, after an early answer (413, 503) goes on reading
whatever the client still sends, and when it stops hangs up on connections whose request is on its
way. The parser is h11: the faster httptools drops the body of a
request that offers to upgrade to HTTP/2, as Java's client and `curl --http2` do.
"""

import asyncio
from typing import Any

import h11
from uvicorn import Config
from uvicorn.protocols.http.h11_impl import H11Protocol

LINGER_BYTES = 1_000_000  # read after an early answer, so that the client sees it and not a reset
LINGER_S = 2.0
_LAST_CALL_S = 1.0  # after the listener has closed, for requests that are on their way


class ConnectionConfig(Config):
    """uvicorn's configuration, and how long a request's header may take to arrive."""

    def __init__(self, app: str, *, header_timeout_s: float, **options: Any) -> None:
        super().__init__(app, http=Connection, **options)
        self.header_timeout_s = header_timeout_s


class Connection(H11Protocol):
    """One client connection, with a time limit for headers and an end after early answers."""

    def __init__(self, config: ConnectionConfig, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        self._header_timeout_s = config.header_timeout_s
        self._header_alarm: asyncio.TimerHandle | None = None
        self._lingered: int | None = None  # bytes thrown away after an early answer

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch_header()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._header_alarm is not None:
            self._header_alarm.cancel()

    def data_received(self, data: bytes) -> None:
        if self._lingered is None:
            super().data_received(data)
            self._watch_header()
            return
        self._lingered += len(data)
        if self._lingered > LINGER_BYTES:
            self.transport.close()

    def shutdown(self) -> None:
        """Stop after the request in progress; one that is on its way still gets its answer."""
        if self.cycle is None or self.cycle.response_complete:
            self.loop.call_later(_LAST_CALL_S, super().shutdown)
        else:
            super().shutdown()

    def on_response_complete(self) -> None:
        if self.conn.their_state is h11.SEND_BODY:  # answered before the body had arrived
            self._linger()
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

    def _linger(self) -> None:
        """Close soon: at once would reset the connection, and the client lose the answer."""
        self._lingered = 0
        self.loop.call_later(LINGER_S, self.transport.close)

    def _unsupported_upgrade_warning(self) -> None:
        """An offer to upgrade is simply not taken; it is nothing to warn of."""
