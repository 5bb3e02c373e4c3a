"""HTTP connections that slow or stubborn clients cannot hold: uvicorn's protocol, with two fixes.

uvicorn waits forever for a request's header, and after an early answer (413, 503) goes on reading
whatever the client still sends.
"""

import asyncio
from typing import Any

from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LINGER_BYTES = 1_000_000  # read after an early answer, so that the client sees it and not a reset
LINGER_S = 2.0


class ConnectionConfig(Config):
    """uvicorn's configuration, and how long a request's header may take to arrive."""

    def __init__(self, app: str, *, header_timeout_s: float, **options: Any) -> None:
        super().__init__(app, http=Connection, **options)
        self.header_timeout_s = header_timeout_s


class Connection(HttpToolsProtocol):
    """One client connection, with a time limit for headers and an end after early answers."""

    def __init__(self, config: ConnectionConfig, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        self._header_timeout_s = config.header_timeout_s
        self._header_alarm: asyncio.TimerHandle | None = None
        self._receiving = False  # between a request's first byte and the end of its body
        self._lingered: int | None = None  # bytes thrown away after an early answer

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_header()

    def connection_lost(self, exc: Exception | None) -> None:
        self._header_arrived()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._lingered is not None:
            self._lingered += len(data)
            if self._lingered > LINGER_BYTES:
                self.transport.close()
            return
        if not self._receiving and self._header_alarm is None:
            self._await_header()  # the next request of a kept-alive connection
        super().data_received(data)

    def on_message_begin(self) -> None:
        self._receiving = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._header_arrived()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._receiving = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        if self._receiving:  # answered before the body had arrived
            self._linger()
        super().on_response_complete()

    def _await_header(self) -> None:
        self._header_alarm = self.loop.call_later(self._header_timeout_s, self._too_slow)

    def _header_arrived(self) -> None:
        if self._header_alarm is not None:
            self._header_alarm.cancel()
            self._header_alarm = None

    def _too_slow(self) -> None:
        self.transport.close()

    def _linger(self) -> None:
        """Close soon: at once would reset the connection, and the client lose the answer."""
        self._lingered = 0
        self.loop.call_later(LINGER_S, self.transport.close)
