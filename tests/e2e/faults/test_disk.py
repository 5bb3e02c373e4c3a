"""The disk is full, read-only, or holds something else than before."""

import os
import resource
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from shutil import which
from subprocess import run
from typing import Any

import pytest

from tests.e2e.faults.load import Ask, Load, best, photos
from tests.e2e.faults.table import Fault, record
from tests.e2e.server import Server
from tests.e2e.test_slow_clients import connect, many, one_answer
from tests.e2e.test_statuses import png
from tests.e2e.test_swap import wait
from tests.versions import change_card, make_version, publish

pytestmark = pytest.mark.slow
_UNLIMITED = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
_WATCH = ("--watch-s", "0.2")


class Logging(Server):
    """Its standard error is a file."""

    def __init__(self, store: Path, file: Path) -> None:
        super().__init__(store, under=("sh", "-c", 'exec "$@" 2> "$0"', str(file)))
        file.touch()
        self._file = file

    def _read(self) -> None:
        with self._file.open(encoding="utf-8") as lines:
            while self.process.poll() is None:
                time.sleep(0.01)
                for line in lines:
                    self._note(line)


def test_a_full_disk(store: Path, tmp_path: Path) -> None:
    file = tmp_path / "log"
    with Logging(store, file) as server, Load(server.url, photos(server.url)) as load:
        (worker,) = server.workers()
        load.strike()
        for pid in (worker, server.process.pid):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, _UNLIMITED[1]))
        before = file.stat().st_size
        with connect(server) as large:
            large.sendall(many("panda", 20))
            assert one_answer(large).startswith(b"HTTP/1.1 200 ")
        load.wait_for_right()
        record(Fault.FULL_DISK, load)
        assert set(load.seen) == {"right"}

        full = file.stat().st_size
        os.kill(worker, signal.SIGKILL)
        load.wait_for_right()
        (new,) = server.workers()
        for pid in (new, server.process.pid):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, _UNLIMITED)
        wait(lambda: file.stat().st_size > full, "logged again")

    assert full <= before + 1000  # what was written before the limit
    assert new != worker
    assert set(load.seen) <= {"right", "reset", "503"}


_READ_ONLY = 'mount -o remount,bind,ro / && ! touch "$0/x" 2> /dev/null && exec "$@"'
_NAMESPACE = ("unshare", "--map-root-user", "--mount")


def test_a_file_system_that_is_read_only(store: Path, tmp_path: Path) -> None:
    make_version(store, tmp_path, 1)
    shell = (*_NAMESPACE, "sh", "-c", _READ_ONLY, str(tmp_path))
    if which("unshare") is None or run([*shell, "true"], check=False).returncode:
        pytest.skip("no file system can be made read-only here")
    with Server(tmp_path, *_WATCH, under=shell) as server, Load(server.url, _VERSIONS) as load:
        load.strike()
        with connect(server) as large:
            large.sendall(many("panda", 20))
            assert one_answer(large).startswith(b"HTTP/1.1 200 ")
        make_version(store, tmp_path, 2)  # from outside, as a volume would
        server.wait_for_log("loaded seed_cnn version 2")
        load.wait_for_right()
        record(Fault.READ_ONLY, load)
    assert set(load.seen) == {"right"}


def _as_its_version(answer: Any) -> bool:
    return best(answer)[0] == int(answer["version"])


_VERSIONS = [Ask(png(side, side), _as_its_version) for side in (16, 24, 32)]


@pytest.fixture
def watching(store: Path, tmp_path: Path) -> Iterator[Server]:
    """A server that watches tmp_path, with a model whose only class is its version: 1."""
    make_version(store, tmp_path, 1)
    with Server(tmp_path, *_WATCH) as running:
        yield running


def test_an_artifact_that_is_deleted(store: Path, tmp_path: Path, watching: Server) -> None:
    with Load(watching.url, _VERSIONS) as load:
        load.strike()
        shutil.rmtree(tmp_path / "seed_cnn")
        watching.wait_for_log("nothing is dropped")
        load.wait_for_right()
        make_version(store, tmp_path, 2)
        watching.wait_for_log("loaded seed_cnn version 2")
        load.wait_for_right()
        record(Fault.DELETED, load)
    assert set(load.seen) == {"right"}


def test_an_artifact_that_is_cut_off(store: Path, tmp_path: Path, watching: Server) -> None:
    with Load(watching.url, _VERSIONS) as load:
        load.strike()
        for file in ("model.onnx", "ragged.onnx", "card.json"):
            os.truncate(tmp_path / "seed_cnn" / "1" / file, 100)
        watching.wait_for_log("cannot be used, what was loaded before is")
        load.wait_for_right()
        make_version(store, tmp_path, 1)
        watching.wait_for_log("loaded seed_cnn version 1")
        load.wait_for_right()
        record(Fault.TRUNCATED, load)
    assert set(load.seen) == {"right"}


def test_an_artifact_that_is_replaced(store: Path, tmp_path: Path, watching: Server) -> None:
    seen: set[int] = set()

    def either(answer: Any) -> bool:
        seen.add(best(answer)[0])
        return best(answer)[0] in (1, 2)

    draft = make_version(store, tmp_path / ".aside", 2)
    change_card(draft, version=1)
    with Load(watching.url, [Ask(png(20, 20), either)]) as load:
        load.strike()
        publish(draft, tmp_path / "seed_cnn" / "1")
        wait(lambda: 2 in seen, "served what lies there now")
        seen.clear()
        load.wait_for_right()
        record(Fault.SWAPPED, load)
    assert set(load.seen) == {"right"}
    assert 2 in seen
