"""What several workers take and share, without a server."""

import json
import multiprocessing
import os
import resource
import signal
from collections.abc import Callable, Iterator
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
from service.workers import (
    Folder,
    Listen,
    SharedNumber,
    assign,
    place_here,
    share,
    shared_folder,
)

spawn = multiprocessing.get_context("spawn")


@pytest.fixture
def folder() -> Iterator[Folder]:
    with shared_folder(2) as made:
        yield made


def elsewhere(work: Callable[..., None], *arguments: object) -> None:
    """Do it in another process, to its end."""
    other = spawn.Process(target=work, args=arguments)
    other.start()
    other.join()


@pytest.mark.parametrize("listen", ["at-once", "soon", "when-ready"])
def test_a_worker_is_told_which_it_is_and_where_to_meet(listen: Listen) -> None:
    with shared_folder(1) as folder:
        assign(3, listen)
        place = place_here()
        assert (place.folder, place.number, place.listen) == (folder, 3, listen)
        assert Path(place.note).parent == folder.path
        assert "PROMETHEUS_MULTIPROC_DIR" not in os.environ  # one worker counts by itself
    assert not folder.path.exists()
    assert workers.FOLDER not in os.environ


def test_several_workers_count_in_a_folder_of_its_own(folder: Folder) -> None:
    counts = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
    assert counts.parent == folder.path
    (counts / "gauge_livesum_12.db").touch()
    (counts / "gauge_livesum_1.db").touch()
    (counts / "counter_1.db").touch()
    folder.forget(1)
    assert sorted(file.name for file in counts.iterdir()) == ["counter_1.db", "gauge_livesum_12.db"]


def test_one_worker_is_replaced_and_not_all(folder: Folder) -> None:
    folder.replace(17)
    assert folder.is_replaced(17)
    assert not folder.is_replaced(1)
    folder.forget(17)  # the kernel may give that number to another one
    assert not folder.is_replaced(17)


@pytest.mark.parametrize(("cores", "n"), [(1, 1), (2, 2), (7, 2), (8, 3), (64, 8)])
def test_cores_are_shared_out_to_the_last_and_none_twice(cores: int, n: int) -> None:
    settings = Settings(cores=cores, workers=n, memory_mb=16_000, bodies_mb=1_000)
    shares = [share(settings, number) for number in range(n)]
    assert sum(each.cores for each in shares) == cores
    assert min(each.cores for each in shares) >= max(1, cores // n)
    for each in shares:
        assert each.memory_mb == 16_000 // n
        assert each.queue_megapixels == pytest.approx(64 / n)
        assert each.bodies_mb == pytest.approx(1_000 / n)


KEYS = Path("keys.json")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"cores": 2, "workers": 3}, "there are 2 cores"),
        ({"cores": 4, "workers": 4, "queue_megapixels": 8}, "less than one image of 2.1"),
        ({"cores": 2, "workers": 2, "queue_megapixels": 8, "api_keys_file": KEYS}, "half"),
        ({"cores": 4, "workers": 4, "memory_mb": 1_000}, "memory for 0.79 megapixels"),
        ({"cores": 2, "workers": 2, "control_access": "open"}, "reach one worker"),
    ],
)
def test_what_cannot_be_shared_out_is_refused(given: dict[str, Any], said: str) -> None:
    if said == "half":
        Settings(**given | {"api_keys_file": None})  # without keys it is enough
    with pytest.raises(ValidationError, match=said):
        Settings(**given)


def test_a_number_is_the_same_for_all_and_nothing_is_lost(folder: Folder) -> None:
    adding = [spawn.Process(target=add, args=(folder.path / "number", 2_000)) for _ in range(2)]
    for each in adding:
        each.start()
    for each in adding:
        each.join()
    with SharedNumber(folder.path / "number") as number:
        assert number.value == 4_000


def add(path: Path, times: int) -> None:
    number = SharedNumber(path)
    for _ in range(times):
        with number:
            number.value += 1


def test_a_number_whose_holder_died_can_be_changed(folder: Folder) -> None:
    elsewhere(die_holding, folder.path / "number")
    with SharedNumber(folder.path / "number") as number:
        number.value += 1
        assert number.value == 1


def die_holding(path: Path) -> None:
    with SharedNumber(path):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_budget_is_spent_by_all_workers_together(folder: Folder, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    entry = {"name": "poor.db", "key": "k" * 20, "megapixels_per_s": 1e-6, "burst_megapixels": 1}
    file.write_text(json.dumps({"keys": [entry]}))
    budgets: list[Budget] = []
    for _ in range(2):
        (client,) = load_keys(file, folder.number)
        assert client.budget is not None
        budgets.append(client.budget)
    budgets[0].spend(600_000)
    with pytest.raises(RateLimited):
        budgets[1].spend(600_000)
    budgets[1].spend(400_000)
    with pytest.raises(RateLimited):
        budgets[0].spend(1)
    assert not [*Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]).iterdir()]  # whatever a key is called


def test_keys_hold_no_files_open(folder: Folder, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    entries = [{"name": f"k{n}", "key": f"{n:020}", "megapixels_per_s": 1} for n in range(50)]
    file.write_text(json.dumps({"keys": entries}))
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    keys = load_keys(file, folder.number)
    for client in keys:
        assert client.budget is not None
        client.budget.spend(1)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def shared(name: str, batch: int) -> Outcome:
    """What became of an image whose run it shared with others."""
    return Outcome(name, phases=[Phase("infer", 1.0, 1.5, batch)])


def counted(statistics: Statistics) -> tuple[int, int]:
    record = statistics.of("net", 1)
    return record.success.count, record.images


def test_statistics_are_those_of_all_workers_and_outlive_them(folder: Folder) -> None:
    here = Statistics(folder)
    here.answered(("net", 1), [shared("a.jpg", 2), shared("b.jpg", 2)], 0.1)
    assert counted(here) == (1, 2)
    here.publish()
    assert counted(here) == (1, 2)  # its own once
    elsewhere(answer_one, folder)
    assert counted(here) == (2, 3)
    assert here.of("net", 1).executions == 2
    elsewhere(answer_one, folder)
    assert counted(here) == (3, 4)
    assert counted(here) == (3, 4)  # asking changes nothing


def answer_one(folder: Folder) -> None:
    """A worker's whole life."""
    statistics = Statistics(folder)
    statistics.answered(("net", 1), [shared("c.jpg", 1)], 0.1)
    statistics.publish()


def test_where_nothing_can_be_written_what_was_published_stays(folder: Folder) -> None:
    elsewhere(publish_twice, folder)
    assert folder.published("text") == ["before"]


def publish_twice(folder: Folder) -> None:
    folder.publish("text", "before")
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # as on a full disk
    folder.publish("text", "after")
