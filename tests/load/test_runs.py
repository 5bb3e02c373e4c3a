"""Whole runs of the load test, in processes of their own, as `make load` starts them."""

import json
import re
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.load.__main__ import HERE, environment, locust, run
from tests.load.fake import Fake

QUICK = ("--count", "12", "--mix", "thumbs")
OPEN = ("--users", "40", "--spawn-rate", "40", "--pace", "1", "--run-time", "4s")


def loaded(url: str, out: Path, *arguments: str, steps: bool = False) -> tuple[int, dict[str, Any]]:
    """Exit code and report of a run."""
    code = run(locust(url, str(out), *QUICK, *arguments, steps=steps))
    return code, json.loads((out / "report.json").read_text(encoding="utf-8"))


def test_one_wrong_probability_ends_with_1_and_writes_both_reports(tmp_path: Path) -> None:
    with Fake(wrong=30, refused=120) as fake:
        code, report = loaded(fake.url, tmp_path, *OPEN)
    assert code == 1
    assert (report["wrong"], report["failed"], report["unchecked"]) == (1, 0, 0)
    assert report["checked"] == report["answered"] > 30
    assert report["refused"] == report["requests"] // 120
    assert "<svg" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_an_interrupted_run_is_checked_and_reported(tmp_path: Path) -> None:
    with Fake(wrong=20) as fake:
        command = locust(fake.url, str(tmp_path), *QUICK, *OPEN, "--run-time", "5m")
        hear = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # in the background as well
        with subprocess.Popen(command, env=environment(), preexec_fn=hear) as running:
            _until(lambda: fake.count > 40)
            running.send_signal(signal.SIGINT)
            assert running.wait(60) == 1
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert (report["wrong"], report["failed"]) == (1, 0)


@pytest.mark.slow
def test_refusals_are_no_errors(tmp_path: Path) -> None:
    with Fake(refused=3) as fake:
        code, report = loaded(fake.url, tmp_path, *OPEN, "--objective-ms", "0")
    assert code == 0
    assert report["refused"] == report["requests"] // 3
    assert report["failed"] == report["wrong"] == 0


@pytest.mark.slow
def test_in_the_open_loop_a_stalled_server_is_not_flattered(tmp_path: Path) -> None:
    """At 40 a second a stall of 2 s is met by about 80 requests; by one, where clients wait."""
    with Fake(stalled=(40, 2.0)) as fake:
        code, report = loaded(fake.url, tmp_path / "open", *OPEN, "--connections", "4")
    slow = report["late"]
    assert code == 1
    assert 20 < slow < 70, "those that were due in the first second of the stall"
    assert report["classes"][0]["all"]["p90_ms"] > 1000
    with Fake(stalled=(40, 2.0)) as fake:
        more = ("--loop", "closed", "--users", "1", "--run-time", "4s")
        _, report = loaded(fake.url, tmp_path / "closed", *more)
    assert report["late"] == 1


@pytest.mark.slow
def test_steps_find_the_capacity_of_a_server_that_takes_25_ms(tmp_path: Path) -> None:
    with Fake(seconds=0.025) as fake:
        more = ("--steps", "5", "--step-s", "4")
        code, report = loaded(fake.url, tmp_path, *more, steps=True)
    assert code == 0
    assert report["steps"][0] == {"rate": 5, "held": True}
    assert 20 <= report["capacity"] <= 50  # 40 a second, and what a queue of a second hides


@pytest.mark.slow
def test_a_master_gathers_wrong_answers_and_classes_of_two_workers(tmp_path: Path) -> None:
    port = str(_free_port())
    worker = [sys.executable, "-P", "-m", "locust", "-f", str(HERE / "locustfile.py"), "--worker",
              "--master-port", port]  # fmt: skip
    with Fake(wrong=50) as fake:
        workers = [subprocess.Popen(worker, env=environment()) for _ in range(2)]
        try:
            code, report = loaded(
                fake.url, tmp_path, *OPEN, "--master", "--expect-workers", "2",
                "--master-bind-host", "127.0.0.1", "--master-bind-port", port,
            )  # fmt: skip
        finally:
            for each in workers:
                each.send_signal(signal.SIGTERM)
                each.wait(30)
    assert code == 1
    assert (report["wrong"], report["failed"]) == (1, 0)
    assert report["requests"] == fake.count - len(_pictures(report))
    assert {row["pixels"] for row in report["classes"]} == {"≤ 128²", "≤ 512²"}


def _pictures(report: dict[str, Any]) -> range:
    """Those that were asked about alone: with so many requests, all."""
    return range(report["settings"]["count"])


@pytest.mark.slow
def test_the_web_page_of_locust_starts_and_stops_a_run(tmp_path: Path) -> None:
    port = _free_port()
    command = [
        sys.executable, "-P", "-m", "locust", "-f", str(HERE / "locustfile.py"), "--web-host",
        "127.0.0.1", "--web-port", str(port), *QUICK, "--out", str(tmp_path),
    ]  # fmt: skip
    page = f"http://127.0.0.1:{port}"
    with Fake() as fake, subprocess.Popen(command, env=environment()) as locusts:
        try:
            _until(lambda: httpx.get(page, timeout=5).status_code == 200)
            assert "together" in httpx.get(page, timeout=5).text
            told = {"user_count": "20", "spawn_rate": "20", "host": fake.url}
            httpx.post(f"{page}/swarm", data=told, timeout=10).raise_for_status()
            _until(lambda: fake.count > 20)
            httpx.post(f"{page}/stop", timeout=60).raise_for_status()
            _until((tmp_path / "report.html").exists)
        finally:
            locusts.send_signal(signal.SIGTERM)
            locusts.wait(30)
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["passed"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "sent",
    [
        ("--resize", "native"),
        ("--form", "multipart", "--together", "3"),
        ("--form", "oip", "--together", "2", "--formats", "webp,png"),
    ],
    ids=["raw", "multipart", "oip"],
)
def test_a_run_against_the_real_service_is_right(
    store: Path, tmp_path: Path, sent: tuple[str, ...]
) -> None:
    command = [
        sys.executable, "-P", "-m", "tests.load", "--artifacts", str(store), "--users", "3",
        "--minutes", "0.06", "--out", str(tmp_path), "--objective-ms", "0", *QUICK, *sent,
    ]  # fmt: skip
    done = subprocess.run(
        command, env=environment(), capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["answered"] == report["requests"] > 0
    assert report["images"] == report["checked"] == report["requests"] * max(1, _together(sent))
    assert report["queue"], "no queue was read from /metrics"
    assert re.search(r"answers checked \d+, wrong 0", done.stdout)
    assert "<svg" in (tmp_path / "report.html").read_text(encoding="utf-8")


def _together(sent: tuple[str, ...]) -> int:
    return int(sent[sent.index("--together") + 1]) if "--together" in sent else 1


@pytest.mark.slow
def test_a_short_soak_writes_its_report(store: Path, tmp_path: Path) -> None:
    command = [
        sys.executable, "-P", "-m", "tests.load.soak", "--artifacts", str(store), "--minutes",
        "0.15", "--step-s", "2", "--pictures", "30", "--out", str(tmp_path),
    ]  # fmt: skip
    done = subprocess.run(
        command, env=environment(), capture_output=True, text=True, check=False, timeout=240
    )
    soak = json.loads((tmp_path / "soak.json").read_text(encoding="utf-8"))
    assert done.returncode == (0 if soak["passed"] else 1), done.stdout + done.stderr
    assert soak["load"]["wrong"] == soak["load"]["unchecked"] == 0
    assert soak["load"]["checked"] > 0
    assert len(soak["memory_mb"]) > 2
    assert "Resident memory" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_host_without_a_service_ends_with_1(tmp_path: Path) -> None:
    more = ("--users", "2", "--spawn-rate", "2", "--run-time", "2s")
    code, report = loaded(f"http://127.0.0.1:{_free_port()}", tmp_path, *more)
    assert code == 1
    assert report["failed"] == report["requests"] > 0


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def _until(reached: Any) -> None:
    give_up = time.monotonic() + 60
    while True:
        try:
            if reached():
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < give_up
        time.sleep(0.05)
