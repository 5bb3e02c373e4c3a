"""A client that costs little: the requests are made beforehand, the answers hardly looked at."""

import socket
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import cycle
from typing import Self
from urllib.parse import urlsplit

PATH = "/v1/classify?resize=native&top_k=1"
FOREVER = float("inf")
_BOUNDARY = "8d1c52a6"


def request(files: Sequence[bytes], path: str = PATH) -> bytes:
    """One file as a raw body, several as multipart."""
    kind, body = "image/jpeg", files[0]
    if len(files) > 1:
        kind = f"multipart/form-data; boundary={_BOUNDARY}"
        parts = (
            b'--%b\r\nContent-Disposition: form-data; name="files"; filename="x.jpg"\r\n\r\n%b\r\n'
            % (_BOUNDARY.encode(), data)
            for data in files
        )
        body = b"".join(parts) + f"--{_BOUNDARY}--\r\n".encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}"
    return f"{head}\r\n\r\n".encode() + body


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, after how many seconds, and when."""

    status: int
    body: bytes
    seconds: float
    at: float

    @property
    def right(self) -> bool:
        """Every image was classified."""
        return self.status == 200 and b'"error"' not in self.body


class Connection:
    """A kept connection; one request at a time."""

    def __init__(self, url: str) -> None:
        where = urlsplit(url)
        self._socket = socket.create_connection((where.hostname or "", where.port or 80), 120)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = self._socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._reader.close()
        self._socket.close()

    def send(self, request: bytes) -> Answer:
        """Send it and read the answer."""
        begun = time.perf_counter()
        self._socket.sendall(request)
        status = int(self._reader.readline().split()[1])
        length = 0
        while (line := self._reader.readline()) != b"\r\n":
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        body, now = self._reader.read(length), time.perf_counter()
        return Answer(status, body, now - begun, now)


def closed_loop(
    url: str, requests: Sequence[bytes], clients: int, seconds: float = FOREVER
) -> list[Answer]:
    """Each client sends the next of the requests as soon as it has its answer, all of them once;
    or over and over, for so many seconds."""
    end = time.perf_counter() + seconds
    left = iter(requests) if seconds == FOREVER else cycle(requests)  # taken under the GIL

    def client(number: int) -> list[Answer]:
        answers = []
        with Connection(url) as connection:
            for each in left:
                answers.append(connection.send(each))
                if answers[-1].at > end:
                    break
        return answers

    with ThreadPoolExecutor(clients) as threads:
        return [answer for answers in threads.map(client, range(clients)) for answer in answers]
