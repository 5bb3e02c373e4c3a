"""Traces of a real server, as a real collector of OTLP over HTTP reads them."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.conftest import anypool, photo
from tests.e2e.server import Server

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
EXTERNAL = {"traceparent": f"00-{TRACE}-{PARENT}-01"}


class Collector:
    """Keeps the spans it is sent."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.services: set[str] = set()
        self.url = ""

    def take(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.services.add(attributes(resource.resource)["service.name"])
            for scope in resource.scope_spans:
                self.spans += scope.spans

    def of(self, trace: str) -> list[Span]:
        return [span for span in self.spans if span.trace_id.hex() == trace]


@contextmanager
def collector() -> Iterator[Collector]:
    kept = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            kept.take(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.end_headers()
            self.wfile.write(ExportTraceServiceResponse().SerializeToString())

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        kept.url = f"http://127.0.0.1:{listening.server_port}/v1/traces"
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield kept
        listening.shutdown()


def attributes(of: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in of.attributes}


@pytest.fixture(scope="module")
def traced(store: Path) -> Iterator[tuple[Collector, dict[str, httpx.Response], Server]]:
    """A server that was asked a few things and has ended, and what it sent to its collector."""
    files = [("files", (f"{name}.webp", photo(name).data)) for name in ("panda", "cup")]
    files += [
        ("files", ("text.jpg", b"hello")),
        ("files", ("half.jpg", photo("bee").data[:20_000])),
    ]
    with collector() as kept:
        with Server(store, "--otel-endpoint", kept.url) as server:
            with httpx.Client(base_url=server.url, timeout=60) as client:
                unsampled = {"traceparent": f"00-{'1' * 32}-{PARENT}-00"}
                answers = {
                    "many": client.post("/v1/classify", files=files, headers=EXTERNAL),
                    "alone": client.post("/v1/classify", content=photo("cup").data),
                    "unsampled": client.post(
                        "/v1/classify", content=photo("cup").data, headers=unsampled
                    ),
                    "lost": client.get("/v1/nothing"),
                }
                client.get("/metrics")
            server.terminate()
            assert server.process.wait(40) == 0  # flushed, well before the exporter's own time
        yield kept, answers, server


Traced = tuple[Collector, dict[str, httpx.Response], Server]


def test_a_request_is_a_span_below_the_clients_own(traced: Traced) -> None:
    kept, answers, _ = traced
    (span,) = [s for s in kept.of(TRACE) if s.kind == Span.SPAN_KIND_SERVER]
    assert span.name == "POST /v1/classify"
    assert span.parent_span_id.hex() == PARENT
    used = [result["used"] for result in answers["many"].json()["results"][:2]]
    found = attributes(span)
    expected = {
        "http.request.method": "POST",
        "http.route": "/v1/classify",
        "http.response.status_code": 200,
        "url.path": "/v1/classify",
        "url.scheme": "http",
        "client.address": "127.0.0.1",
        "anypool.request_id": answers["many"].headers["x-request-id"],
        "anypool.model": "efficientnet_lite0",
        "anypool.version": "1",
        "anypool.images": 4,
    }
    assert {name: found[name] for name in expected} == expected
    assert found["anypool.pixels"] >= sum(size["width"] * size["height"] for size in used)
    assert kept.services == {"anypool"}


def test_below_it_stands_what_each_image_went_through(traced: Traced) -> None:
    kept, _, _ = traced
    spans = kept.of(TRACE)
    (request,) = [s for s in spans if s.kind == Span.SPAN_KIND_SERVER]
    children = [s for s in spans if s is not request]
    assert all(child.parent_span_id == request.span_id for child in children)
    phases: dict[int, list[Span]] = {}
    for child in sorted(children, key=lambda child: child.start_time_unix_nano):
        phases.setdefault(attributes(child)["anypool.image"], []).append(child)
    assert sorted(phases) == [0, 1, 3]  # number 2 was no image, and never waited
    for index, own in phases.items():
        names = [span.name for span in own]
        assert names in (["queue", "decode", "queue", "infer"], ["queue", "decode"])
        assert ("infer" in names) == (index != 3)
        for before, after in pairwise(own):
            assert before.end_time_unix_nano <= after.start_time_unix_nano + 1000
            if before.name == "queue":  # what it waited for begins at once
                assert before.end_time_unix_nano == after.start_time_unix_nano
        assert request.start_time_unix_nano <= own[0].start_time_unix_nano
        assert own[-1].end_time_unix_nano <= request.end_time_unix_nano
        assert all(s.start_time_unix_nano < s.end_time_unix_nano for s in own if s.name != "queue")
    assert attributes(phases[0][-1])["anypool.batch.images"] >= 1
    assert attributes(phases[3][-1])["error.type"] == "undecodable-image"


def test_without_a_parent_a_trace_begins_and_its_id_stands_in_the_log(traced: Traced) -> None:
    kept, answers, server = traced
    request_id = answers["alone"].headers["x-request-id"]
    (line,) = [line for line in server.lines if request_id in line]
    trace = line.split("trace_id=")[1].split()[0]
    (span,) = [s for s in kept.of(trace) if s.kind == Span.SPAN_KIND_SERVER]
    assert not span.parent_span_id
    assert attributes(span)["anypool.request_id"] == request_id


def test_a_parent_that_is_not_sampled_is_followed(traced: Traced) -> None:
    kept, answers, server = traced
    assert answers["unsampled"].status_code == 200
    assert kept.of("1" * 32) == []
    assert "trace_id=" + "1" * 32 in server.log


def test_probes_are_not_traced_and_unknown_pages_have_no_route(traced: Traced) -> None:
    kept, _, _ = traced
    names = [span.name for span in kept.spans if span.kind == Span.SPAN_KIND_SERVER]
    assert sorted(names) == ["GET", "POST /v1/classify", "POST /v1/classify"]


def test_a_collector_that_is_not_there_harms_nothing(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "100")  # more than anybody waits below
    with Server(store, "--otel-endpoint", "http://127.0.0.1:9/v1/traces") as server:
        for _ in range(3):
            answer = httpx.post(f"{server.url}/v1/classify", content=photo("cup").data)
            assert answer.status_code == 200
        server.terminate()
        assert server.process.wait(20) == 0
    assert "Traceback" not in server.log


def test_a_wrong_endpoint_is_named(store: Path) -> None:
    done = anypool("serve", "--artifacts", store, "--otel-endpoint", "collector:4318")
    assert done.returncode == 2
    assert "--otel-endpoint" in done.stderr
