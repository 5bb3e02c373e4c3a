"""The playground's page and files, as they are sent; tests/browser has what they do."""

import json
import re
import shutil
from pathlib import Path

import httpx
import pytest

from tests.conftest import PHOTOS
from tests.e2e.server import Server

STATIC = Path(__file__).parents[2] / "service" / "static"
FILES = sorted(path for path in STATIC.rglob("*") if path.is_file())
PAGE = (STATIC / "index.html").read_text(encoding="utf-8")
SCRIPTS = [path for path in FILES if path.suffix == ".js"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_file_is_sent_once_and_then_only_when_it_changes(
    client: httpx.Client, path: Path
) -> None:
    name = path.relative_to(STATIC).as_posix()
    address = "/" if name == "index.html" else f"/static/{name}"
    answer = client.get(address).raise_for_status()
    assert answer.content == path.read_bytes()
    assert answer.headers["cache-control"] == "no-cache"
    again = client.get(address, headers={"If-None-Match": f'"other", W/{answer.headers["etag"]}'})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get(address, headers={"If-None-Match": '"other"'}).status_code == 200


def test_files_have_the_types_that_browsers_insist_on(client: httpx.Client) -> None:
    kinds = {name: client.get(name).headers["content-type"] for name in
             ("/", "/static/app.js", "/static/base.css", "/static/icon.svg")}  # fmt: skip
    assert [kind.partition(";")[0] for kind in kinds.values()] == [
        "text/html", "text/javascript", "text/css", "image/svg+xml",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "path", ["/static/", "/static/none.js", "/static/../app.py", "/static/%2e%2e/app.py"]
)
def test_nothing_else_is_sent(client: httpx.Client, path: str) -> None:
    request = client.build_request("GET", "/")
    raw = request.url.raw_path.rstrip(b"/") + path.encode()
    request.url = request.url.copy_with(raw_path=raw)  # as it is: not normalised
    answer = client.send(request)
    assert answer.status_code == 404
    assert b"import" not in answer.content


def test_the_page_may_load_its_own_files_and_nothing_else(client: httpx.Client) -> None:
    policy = client.get("/").headers["content-security-policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules.pop("default-src") == "'none'"
    assert set(rules.values()) == {"'none'", "'self'"}


def test_the_page_has_no_inline_script_or_style_and_only_relative_addresses() -> None:
    assert re.findall(r"<script(?![^>]*\ssrc=)", PAGE) == []
    assert re.findall(r"<style|\sstyle=|\son\w+=", PAGE) == []
    for kind, address in re.findall(r'(src|href|data-example)="([^"]+)"', PAGE):
        outside = kind == "href" and address.startswith("https://commons.wikimedia.org/")
        assert outside or re.match(r"(static/[\w./]+|docs)$", address), address


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_name_no_host_make_no_markup_and_store_nothing(path: Path) -> None:
    text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    assert re.findall(r"https?://|innerHTML|outerHTML|insertAdjacentHTML|\beval\(", text) == []
    assert re.findall(r"localStorage|sessionStorage|indexedDB|document\.cookie", text) == []
    assert len(text.splitlines()) < 300


def test_each_example_photo_is_attributed() -> None:
    rows = {r["file"]: r for r in json.loads((PHOTOS / "manifest.json").read_text("utf-8"))}
    for path in (STATIC / "examples").iterdir():
        assert f'data-example="static/examples/{path.name}"' in PAGE
        row = rows[path.name]
        assert row["license"] in ("CC0-1.0", "Public Domain")
        licence = "CC0" if row["license"].startswith("CC0") else "public domain"
        assert f'<a href="{row["source"]}" rel="noreferrer">{row["author"]}, {licence}</a>' in PAGE


def test_without_the_playground_the_root_leads_to_the_documentation(
    store: Path, tmp_path: Path
) -> None:
    shutil.copytree(store / "seed_cnn", tmp_path / "seed_cnn")
    with Server(tmp_path, "--no-playground") as server:
        answer = httpx.get(f"{server.url}/")
        assert (answer.status_code, answer.headers["location"]) == (307, "docs")
        assert httpx.get(f"{server.url}/static/app.js").status_code == 404
