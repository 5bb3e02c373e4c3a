"""What several workers take and share, without a server."""

import json
import multiprocessing
import os
import resource
import signal
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from service import workers
from service.budget import Budget
from service.errors import RateLimited
from service.keys import load_keys
from service.outcome import Outcome
from service.settings import Settings
from service.statistics import Statistics
from service.work import Phase
from service.workers import Place, SharedNumber, share, shared_folder, take_place

spawn = multiprocessing.get_context("spawn")


@pytest.fixture
def folder() -> Iterator[Path]:
    with shared_folder(2) as made:
        yield made.path


def hold(end: Connection) -> None:
    """In another process: take a place, tell of it, and keep it until told to leave."""
    place = take_place()
    end.send((place.index, place.first, place.before, os.getpid()))
    place.publish("text", f"of place {place.index}")
    end.recv()


class Other:
    """A process that holds a place."""

    def __init__(self) -> None:
        self.end, theirs = spawn.Pipe()
        self.process = spawn.Process(target=hold, args=(theirs,))
        self.process.start()
        self.index, self.first, self.before, self.pid = self.end.recv()

    def die(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self.process.join()


def test_each_worker_has_a_place_and_a_replacement_that_of_the_one_that_died(folder: Path) -> None:
    one = Other()
    two = Other()
    assert (one.index, one.first, one.before) == (0, True, None)
    assert (two.index, two.first, two.before) == (1, False, None)
    one.die()
    again = Other()
    assert (again.index, again.first, again.before) == (0, False, one.pid)
    two.die()
    again.die()


def test_the_folder_is_found_by_workers_and_goes_in_the_end() -> None:
    with shared_folder(1) as folder:
        place = take_place()
        assert place.folder == folder.path
        assert Path(place.note).parent == folder.path
        assert "PROMETHEUS_MULTIPROC_DIR" not in os.environ  # one worker counts by itself
        assert not place.ends
        folder.end()
        assert place.ends
    assert not folder.path.exists()
    assert place.ends
    assert workers.FOLDER not in os.environ


@pytest.mark.parametrize(("cores", "n"), [(1, 1), (2, 2), (7, 2), (8, 3), (64, 8)])
def test_cores_are_shared_out_to_the_last_and_none_twice(cores: int, n: int) -> None:
    settings = Settings(cores=cores, workers=n, memory_mb=16_000, bodies_mb=1_000)
    shares = [share(settings, index) for index in range(n)]
    assert sum(each.cores for each in shares) == cores
    assert min(each.cores for each in shares) >= max(1, cores // n)
    for each in shares:
        assert each.memory_mb == 16_000 // n
        assert each.queue_megapixels == pytest.approx(64 / n)
        assert each.bodies_mb == pytest.approx(1_000 / n)
    assert share(settings, n).cores == cores // n  # one more, while they are replaced


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"cores": 2, "workers": 3}, "there are 2 cores"),
        ({"cores": 4, "workers": 4, "queue_megapixels": 8}, "less than an image of 2.1"),
        ({"cores": 2, "workers": 2, "control_access": "open"}, "reach one worker"),
    ],
)
def test_what_cannot_be_shared_out_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Settings(**given)


def test_a_number_is_the_same_for_all_and_nothing_is_lost(folder: Path) -> None:
    ends = []
    for _ in range(2):
        adding = spawn.Process(target=add, args=(folder / "number", 2_000))
        adding.start()
        ends.append(adding)
    for adding in ends:
        adding.join()
    with SharedNumber(folder / "number") as number:
        assert number.value == 4_000


def add(path: Path, times: int) -> None:
    """In another process: count up."""
    number = SharedNumber(path)
    for _ in range(times):
        with number:
            number.value += 1


def test_a_number_whose_holder_died_can_be_changed(folder: Path) -> None:
    holding = spawn.Process(target=die_holding, args=(folder / "number",))
    holding.start()
    holding.join()
    with SharedNumber(folder / "number") as number:
        number.value += 1
        assert number.value == 1


def die_holding(path: Path) -> None:
    """In another process: end without giving the lock back."""
    with SharedNumber(path):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_budget_is_spent_by_all_workers_together(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    entry = {"name": "poor", "key": "k" * 20, "megapixels_per_s": 1e-6, "burst_megapixels": 1}
    file.write_text(json.dumps({"keys": [entry]}))
    place = take_place()
    budgets: list[Budget] = []
    for _ in range(2):
        (client,) = load_keys(file, place.number)
        assert client.budget is not None
        budgets.append(client.budget)
    budgets[0].spend(600_000)
    with pytest.raises(RateLimited):
        budgets[1].spend(600_000)
    budgets[1].spend(400_000)
    with pytest.raises(RateLimited):
        budgets[0].spend(1)


def shared(name: str, batch: int) -> Outcome:
    """What became of an image whose run it shared with others."""
    return Outcome(name, phases=[Phase("infer", 1.0, 1.5, batch)])


def counted(statistics: Statistics) -> tuple[int, int]:
    record = statistics.of("net", 1)
    return record.success.count, record.images


def test_statistics_are_those_of_all_workers_and_outlive_one(folder: Path) -> None:
    here = take_place()
    there = Place(folder, 1, first=False, before=None, lock=here.lock)
    one, two = Statistics(here), Statistics(there)
    one.answered(("net", 1), [shared("a.jpg", 2), shared("b.jpg", 2)], 0.1)
    two.answered(("net", 1), [shared("c.jpg", 1)], 0.1)
    assert counted(one) == (1, 2)  # the other has not published yet
    one.publish()
    two.publish()
    assert counted(one) == counted(two) == (2, 3)
    assert one.of("net", 1).executions == 2
    replacement = Statistics(there)
    assert counted(replacement) == (2, 3)
    replacement.answered(("net", 1), [shared("d.jpg", 1)], 0.1)
    replacement.publish()
    assert counted(one) == (3, 4)
    assert counted(one) == (3, 4)  # asking changes nothing


def test_a_worker_takes_its_place_and_publishes_what_it_can_where_nothing_can_be_written(
    folder: Path,
) -> None:
    here = take_place()
    here.publish("text", "before")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))  # as on a full disk
    try:
        there = Other()
        here.publish("text", "after")
        assert here.published("text")[0] == "before"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert there.index == 1
    there.die()
    again = Other()
    assert (again.index, again.first) == (1, False)
    again.die()
