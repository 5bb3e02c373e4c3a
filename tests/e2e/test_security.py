"""Who may do what, how much of it, and what browsers are told."""

import json
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import httpx
import pytest

from tests.conftest import anypool
from tests.e2e.server import Server
from tests.e2e.test_statuses import check_problem, noise, png

SHOP, OPS, POOR, FLOOD = (
    "shop-key-0123456789",
    "ops-key-0123456789",
    "poor-key-0123456789",
    "f" * 32,
)
KEYS = [
    {"name": "shop", "key": SHOP},
    {"name": "ops", "key": OPS, "admin": True},
    {"name": "poor", "key": POOR, "megapixels_per_s": 0.1, "burst_megapixels": 0.15},
    {"name": "flood", "key": FLOOD},
]
ORIGIN = "https://page.example"
IMAGE = png(300, 300)
NATIVE = "/v1/classify?resize=native"
LOAD = "/v2/repository/models/seed_cnn/load"


@pytest.fixture(scope="module")
def small(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the smallest network alone: it starts fast."""
    root = tmp_path_factory.mktemp("small")
    shutil.copytree(store / "seed_cnn", root / "seed_cnn")
    return root


@pytest.fixture(scope="module")
def keys_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "keys.json"
    path.write_text(json.dumps({"keys": KEYS}))
    path.chmod(0o600)
    return path


@pytest.fixture(scope="module")
def keyed(small: Path, keys_file: Path) -> Iterator[Server]:
    """A server that asks for keys, and whose pages live at ORIGIN."""
    options = ["--api-keys-file", str(keys_file), "--queue-megapixels", "3", "--log-level", "debug"]
    guarded = ["--metrics-access", "key", "--control-access", "key", "--cors-origins", ORIGIN]
    with Server(small, *options, *guarded) as running:
        yield running


@pytest.fixture(scope="module")
def plain(small: Path) -> Iterator[Server]:
    """A server without keys, pages, or metrics for anybody."""
    with Server(small, "--metrics-access", "closed") as running:
        yield running


def post(server: Server, key: str = "", path: str = NATIVE, data: bytes = IMAGE) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx.post(f"{server.url}{path}", content=data, headers=headers, timeout=60)


# Keys


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {SHOP}"},
        {"Authorization": f"bearer  {SHOP}"},
        {"X-API-Key": SHOP},
        {"Authorization": "Basic eDp5", "X-API-Key": SHOP},  # a proxy's own
    ],
)
def test_a_key_is_taken_as_bearer_or_as_x_api_key(keyed: Server, headers: dict[str, str]) -> None:
    httpx.post(f"{keyed.url}{NATIVE}", content=IMAGE, headers=headers).raise_for_status()
    httpx.get(f"{keyed.url}/v1/models", headers=headers).raise_for_status()


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong-key-0123456789"},
        {"Authorization": f"Bearer {SHOP}x"},
        {"Authorization": f"Basic {SHOP}"},
        {"Authorization": "Bearer"},
        {"X-API-Key": "shop"},
        {"Cookie": SHOP},
    ],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/classify"),
        ("POST", "/v1/models/seed_cnn/classify"),
        ("POST", "/v1/models/seed_cnn/versions/1/classify"),
        ("GET", "/v1/models"),
        ("GET", "/v1/models/seed_cnn"),
        ("GET", "/metrics"),
        ("GET", "/nothing/that/exists"),
        ("POST", "/healthz/"),
        ("GET", "//v1/models"),
        ("OPTIONS", "/v1/classify"),
    ],
)
def test_without_a_known_key_there_is_no_answer_but_401(
    keyed: Server, method: str, path: str, headers: dict[str, str]
) -> None:
    answer = httpx.request(method, f"{keyed.url}{path}", headers=headers)
    check_problem(answer, 401, "unauthorized")
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("path", ["/v2", "/v2/models/seed_cnn/infer", "/v2/health/liveness", LOAD])
def test_under_v2_a_refusal_is_that_protocol_s_error(keyed: Server, path: str) -> None:
    answer = post(keyed, path=path)
    assert answer.status_code == 401
    if path != "/v2":
        assert answer.json() == {
            "error": "send your key as Authorization: Bearer KEY, or as X-API-Key: KEY"
        }


@pytest.mark.parametrize(
    "path", ["/healthz", "/readyz", "/docs", "/openapi.json", "/", "/static/app.js"]
)
def test_probes_and_documentation_need_no_key(keyed: Server, path: str) -> None:
    assert httpx.get(f"{keyed.url}{path}").status_code in (200, 307)


@pytest.mark.parametrize("path", ["/v2/health/live", "/v2/health/ready"])
def test_the_probes_of_v2_need_no_key(keyed: Server, path: str) -> None:
    assert httpx.get(f"{keyed.url}{path}").status_code != 401


def test_no_body_is_read_without_a_key(keyed: Server) -> None:
    sent = 0

    def body() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(600):
            sent += 100_000
            yield b"x" * 100_000

    try:
        answer = httpx.post(f"{keyed.url}/v1/classify", content=body())
    except httpx.TransportError:
        pass  # cut off before it looked
    else:
        assert answer.status_code == 401
    assert sent < 20_000_000


def test_no_key_is_ever_logged(keyed: Server) -> None:
    post(keyed, SHOP)
    post(keyed, "a-wrong-key-that-is-long")
    keyed.wait_for_log(" 401 ")
    assert "a-wrong-key" not in keyed.log
    assert not [key for key in (SHOP, OPS, POOR, FLOOD) if key in keyed.log]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{}", "keys: Field required"),
        ('{"keys": [{"name": "a", "key": "short"}]}', "keys.0"),
        (None, "No such file"),
    ],
)
def test_serve_ends_with_1_and_names_the_file_that_is_wrong(
    small: Path, tmp_path: Path, content: str | None, said: str
) -> None:
    path = tmp_path / "wrong.json"
    if content is not None:
        path.write_text(content)
    done = anypool("serve", "--artifacts", small, "--api-keys-file", path, "--port", "0")
    assert done.returncode == 1
    assert f"{path}: {said}" in done.stderr


def test_serve_ends_with_2_when_keys_are_asked_for_and_there_are_none(small: Path) -> None:
    done = anypool("serve", "--artifacts", small, "--metrics-access", "key")
    assert done.returncode == 2
    assert "--metrics-access" in done.stderr
    assert "api_keys_file" in done.stderr


# Metrics and control


def test_metrics_are_open_unless_they_are_closed(server: Server, plain: Server) -> None:
    assert httpx.get(f"{server.url}/metrics").status_code == 200
    check_problem(
        httpx.get(f"{plain.url}/metrics"), 403, "forbidden", "ANYPOOL_METRICS_ACCESS is closed"
    )


def test_metrics_can_be_kept_for_keys(keyed: Server) -> None:
    answer = httpx.get(f"{keyed.url}/metrics", headers={"X-API-Key": POOR})
    assert "anypool_body_bytes" in answer.raise_for_status().text


def test_control_of_models_is_closed_by_default(plain: Server) -> None:
    for action in ("load", "unload"):
        answer = post(plain, path=LOAD.replace("load", action))
        assert answer.status_code == 403
        assert answer.json() == {"error": "closed here: ANYPOOL_CONTROL_ACCESS is closed"}


@pytest.mark.parametrize(
    "path", [f"{LOAD}%0a", f"{LOAD[:-4]}unload%0a", f"{LOAD}%0d", "/metrics%0a", "/v1/models%0a"]
)
def test_no_line_break_opens_a_closed_route(plain: Server, path: str) -> None:
    assert httpx.post(plain.url + path).status_code == 404
    assert httpx.get(plain.url + path).status_code == 404


def test_control_of_models_can_be_kept_for_admins(keyed: Server) -> None:
    assert post(keyed, path=LOAD).status_code == 401
    refused = post(keyed, SHOP, LOAD)
    assert refused.status_code == 403
    assert "admin" in refused.json()["error"]
    assert post(keyed, OPS, LOAD).status_code not in (401, 403)


# Budgets and shares


def test_a_spent_budget_is_429_until_the_time_it_says(keyed: Server) -> None:
    post(keyed, POOR).raise_for_status()  # 0.09 of 0.15
    answer = post(keyed, POOR)
    check_problem(answer, 429, "rate-limited", "0.1 megapixels a second")
    assert answer.headers["retry-after"] == "1"
    post(keyed, SHOP).raise_for_status()
    time.sleep(1)  # what it says: that is the point
    post(keyed, POOR).raise_for_status()


def test_a_request_beyond_the_budget_s_burst_is_413(keyed: Server) -> None:
    answer = post(keyed, POOR, data=png(400, 400))
    check_problem(answer, 413, "too-many-pixels", "0.15 at once")


def test_a_request_beyond_a_key_s_share_of_the_queue_is_413(keyed: Server) -> None:
    answer = post(keyed, SHOP, data=png(1_300, 1_300))
    check_problem(answer, 413, "too-many-pixels", "1.5 for one key")


def test_a_key_that_floods_does_not_push_out_another_one(keyed: Server) -> None:
    data, enough = noise(500, 330), Event()
    large = "/v1/classify?resize=fit&size=949"  # 0.594 megapixels: five would fill the queue of 3
    refused: list[httpx.Response] = []

    with httpx.Client(base_url=keyed.url, timeout=60) as client, ThreadPoolExecutor(8) as threads:

        def flood(_: int) -> None:
            while not enough.is_set():
                answer = client.post(large, content=data, headers={"X-API-Key": FLOOD})
                if answer.status_code != 200:
                    refused.append(answer)

        floods = [threads.submit(flood, number) for number in range(8)]
        try:
            while len(refused) < 5:
                time.sleep(0.01)
            shop = {"X-API-Key": SHOP}
            answers = [client.post(NATIVE, content=IMAGE, headers=shop) for _ in range(20)]
        finally:
            enough.set()
    assert not any(done.exception() for done in floods)
    assert {answer.status_code for answer in answers} == {200}
    for answer in refused[:20]:
        check_problem(answer, 503, "overloaded", "your share of the queue")


# Browsers

PROTECTION = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", NATIVE, 200),
        ("GET", "/healthz", 200),
        ("GET", "/openapi.json", 200),
        ("POST", "/v1/classify?top_k=0", 422),
        ("GET", "/nothing", 404),
        ("DELETE", "/v1/classify", 405),
        ("GET", "/metrics", 403),
    ],
)
def test_every_answer_has_the_headers_that_protect_browsers(
    plain: Server, method: str, path: str, status: int
) -> None:
    answer = httpx.request(method, f"{plain.url}{path}", content=IMAGE)
    assert answer.status_code == status
    assert {name: answer.headers.get(name) for name in PROTECTION} == PROTECTION


def test_the_documentation_may_load_what_it_names_and_nothing_else(plain: Server) -> None:
    answer = httpx.get(f"{plain.url}/docs")
    policy = dict(part.split(" ", 1) for part in answer.headers[
        "content-security-policy"
    ].split("; "))  # fmt: skip
    assert policy["default-src"] == policy["frame-ancestors"] == "'none'"
    assert policy["connect-src"] == "'self'"
    loaded = [part.split('"')[0] for part in answer.text.split('="https://')[1:]]
    assert loaded
    for address in loaded:
        assert f"https://{address.split('/')[0]}" in answer.headers["content-security-policy"]


ASKS = {
    "Origin": ORIGIN,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type",
}


def test_pages_of_other_origins_are_told_nothing_by_default(plain: Server) -> None:
    for answer in (
        httpx.options(f"{plain.url}/v1/classify", headers=ASKS),
        httpx.post(f"{plain.url}{NATIVE}", content=IMAGE, headers={"Origin": ORIGIN}),
    ):
        assert not [name for name in answer.headers if name.startswith("access-control")]


def test_a_page_that_is_named_may_ask_and_needs_a_key_only_then(keyed: Server) -> None:
    asked = httpx.options(f"{keyed.url}/v1/classify", headers=ASKS)
    assert asked.status_code == 200
    assert asked.headers["access-control-allow-origin"] == ORIGIN
    assert "authorization" in asked.headers["access-control-allow-headers"].lower()
    assert asked.headers["x-content-type-options"] == "nosniff"
    headers = {"Origin": ORIGIN, "Authorization": f"Bearer {SHOP}"}
    answer = httpx.post(f"{keyed.url}{NATIVE}", content=IMAGE, headers=headers)
    assert answer.raise_for_status().headers["access-control-allow-origin"] == ORIGIN
    refused = httpx.post(f"{keyed.url}{NATIVE}", content=IMAGE, headers={"Origin": ORIGIN})
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == ORIGIN  # so that the page sees why


def test_another_page_may_not(keyed: Server) -> None:
    other = {**ASKS, "Origin": "https://other.example"}
    asked = httpx.options(f"{keyed.url}/v1/classify", headers=other)
    assert asked.status_code == 400
    assert "access-control-allow-origin" not in asked.headers
