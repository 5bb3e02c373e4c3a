"""A server that answers like ours without looking at images, and can be told to misbehave."""

import json
import threading
import time
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


class Fake:
    """Each image has its own class and probability. Requests are counted from 1.

    wrong: the request that is answered with another probability
    refused: every so many-th request is refused, 0: none
    stalled: from the so many-th request on, and for so many seconds, none is answered
    seconds: what one request takes; they are worked on one after the other
    """

    def __init__(
        self,
        wrong: int = 0,
        refused: int = 0,
        stalled: tuple[int, float] = (0, 0.0),
        seconds: float = 0.0,
    ) -> None:
        self._wrong = wrong
        self._refused = refused
        self._stalled = stalled
        self._seconds = seconds
        self._busy = threading.Lock()
        self._counting = threading.Lock()
        self._stall_ends = 0.0
        self.count = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(self, image: bytes) -> tuple[int, dict[str, Any]]:
        with self._counting:
            self.count += 1
            number = self.count
            if number == self._stalled[0]:
                self._stall_ends = time.monotonic() + self._stalled[1]
        if self._refused and number % self._refused == 0:
            return 503, {}
        time.sleep(max(0.0, self._stall_ends - time.monotonic()))
        with self._busy:
            time.sleep(self._seconds)
        known = sha256(image).digest()
        probability = 0.5 + known[1] / 1000 + (0.01 if number == self._wrong else 0)
        prediction = {"index": known[0], "probability": probability}
        used = {"width": known[2] + 1, "height": known[3] + 1}
        return 200, {"results": [{"name": None, "used": used, "predictions": [prediction]}]}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                image = self.rfile.read(int(self.headers["Content-Length"]))
                self._send(*fake._answer(image))

            def do_GET(self) -> None:
                self._send(404, {})

            def _send(self, status: int, told: dict[str, Any]) -> None:
                body = json.dumps(told).encode()
                self.send_response(status)
                if status == 503:
                    self.send_header("Retry-After", "1")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Nothing: there are thousands."""

        return Handler
