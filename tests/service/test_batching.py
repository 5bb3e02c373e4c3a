"""The queue's rules, without a clock."""

from collections.abc import Hashable

from hypothesis import given
from hypothesis import strategies as st

from service.batching import Job, Queue


def job(key: int, group: Hashable = "a", pixels: int = 10, deadline: float = 100.0) -> Job:
    return Job(key, group, 1, pixels, deadline)


def keys(jobs: list[Job]) -> list[int]:
    return [each.key for each in jobs]


def queue(*jobs: Job, limit: int = 35) -> Queue:
    filled = Queue(limit)
    for each in jobs:
        filled.add(each)
    return filled


def test_nothing_waits_for_company() -> None:
    waiting = queue(job(1))
    assert keys(waiting.next()) == [1]
    assert waiting.next() == []


def test_the_oldest_goes_first_and_takes_its_group_along() -> None:
    waiting = queue(job(1, "a"), job(2, "b"), job(3, "a"), job(4, "b"))
    assert keys(waiting.next()) == [1, 3]
    assert keys(waiting.next()) == [2, 4]


def test_jobs_without_a_group_run_alone() -> None:
    waiting = queue(job(1, None), job(2, None))
    assert keys(waiting.next()) == [1]
    assert keys(waiting.next()) == [2]


def test_a_batch_holds_no_more_pixels_than_allowed() -> None:
    waiting = queue(job(1), job(2), job(3), job(4), limit=35)
    assert keys(waiting.next()) == [1, 2, 3]
    assert keys(waiting.next()) == [4]


def test_a_job_larger_than_a_batch_runs_alone() -> None:
    waiting = queue(job(1, pixels=1000), job(2))
    assert keys(waiting.next()) == [1]


def test_a_batch_is_as_large_as_its_canvas_not_as_its_images() -> None:
    waiting = queue(
        Job(1, "a", 2, 5, 100.0),
        Job(2, "a", 7, 1, 100.0),  # a canvas of 7×5 for two: 70
        Job(3, "a", 1, 5, 100.0),
        limit=35,
    )
    assert keys(waiting.next()) == [1, 3]
    assert keys(waiting.next()) == [2]


def test_late_jobs_are_taken_out_and_never_run() -> None:
    waiting = queue(job(1, deadline=5.0), job(2, deadline=9.0))
    assert keys(waiting.expire(now=5.0)) == [1]
    assert keys(waiting.next()) == [2]


def test_a_removed_job_never_runs() -> None:
    waiting = queue(job(1), job(2))
    assert waiting.remove(1)
    assert not waiting.remove(1)
    assert keys(waiting.next()) == [2]


jobs = st.lists(
    st.tuples(st.sampled_from(["a", "b", None]), st.integers(1, 60), st.floats(0, 10)), max_size=30
)


@given(jobs, st.floats(0, 10))
def test_every_job_runs_once_or_expires_once(
    drawn: list[tuple[str | None, int, float]], now: float
) -> None:
    added = [job(key, group, pixels, late) for key, (group, pixels, late) in enumerate(drawn)]
    waiting = queue(*added, limit=50)

    expired = waiting.expire(now)
    batches = []
    while batch := waiting.next():
        batches.append(batch)

    assert all(each.deadline <= now for each in expired)
    ran = [each for batch in batches for each in batch]
    assert sorted(keys(expired) + keys(ran)) == list(range(len(added)))
    for batch in batches:
        assert len({each.group for each in batch}) == 1
        canvas = max(each.height for each in batch) * max(each.width for each in batch)
        assert len(batch) == 1 or canvas * len(batch) <= 50
        assert batch[0].group is not None or len(batch) == 1
    assert keys([batch[0] for batch in batches]) == sorted(batch[0].key for batch in batches)
