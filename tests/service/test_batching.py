"""What runs next: the law by hand, then whatever may happen to a queue."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.batching import Batch, Group, Job, Queue
from service.costs import FREE, Canvas, Costs, Line

FOREVER = float("inf")
NET = Group("net", Costs(Line(1.0, 0.01)))
OTHER = Group("other", Costs(Line(1.0, 0.01)))


def job(
    key: int,
    height: int = 10,
    width: int = 10,
    group: Group | None = NET,
    arrived: float = 0.0,
    cost: float = 1.0,
    deadline: float = FOREVER,
    client: str | None = None,
) -> Job:
    return Job(key, group, height, width, cost, arrived, deadline, client)


def queue(*jobs: Job, limit: int = 1000, patience: float = 10.0) -> Queue:
    filled = Queue(limit, patience)
    for each in jobs:
        filled.add(each)
    return filled


def keys(jobs: Iterable[Job]) -> list[int]:
    return [each.key for each in jobs]


def taken(waiting: Queue, workers: int = 1, room: float = FOREVER) -> list[int]:
    batch = waiting.take(workers, room)
    return [] if batch is None else keys(batch.jobs)


# Order


def test_nothing_waits_for_company() -> None:
    waiting = queue(job(1))
    assert taken(waiting) == [1]
    assert waiting.take() is None
    assert len(waiting) == 0


def test_without_patience_first_come_is_first_served() -> None:
    long, short = job(1, 20, 20, arrived=0.0, cost=9.0), job(2, arrived=0.1, cost=0.1)
    waiting = queue(long, short, patience=0.0)
    assert taken(waiting) == [1]
    assert taken(waiting) == [2]


def test_a_short_job_goes_before_a_long_one_that_came_a_little_earlier() -> None:
    long, short = job(1, 20, 20, arrived=0.0, cost=9.0), job(2, arrived=5.0, cost=0.1)
    waiting = queue(long, short)
    assert taken(waiting) == [2]
    assert taken(waiting) == [1]


@pytest.mark.parametrize(("arrived", "first"), [(8.9, 2), (9.1, 1), (1000.0, 1)])
def test_a_long_job_is_not_overtaken_for_ever(arrived: float, first: int) -> None:
    # Patience is 10: the long job counts as of 0 + 10 · 1.0, the short one of arrived + 10 · 0.1.
    long, short = job(1, 20, 20, arrived=0.0, cost=1.0), job(2, arrived=arrived, cost=0.1)
    assert taken(queue(long, short)) == [first]


def test_of_jobs_equally_urgent_the_one_added_first_goes_first() -> None:
    waiting = queue(*(job(key, group=None) for key in (3, 1, 2)))
    assert [taken(waiting) for _ in range(3)] == [[3], [1], [2]]


# Clients take turns


def of(client: str, *numbers: int, cost: float = 1.0, arrived: float = 0.0) -> list[Job]:
    return [job(n, group=None, cost=cost, arrived=arrived, client=client) for n in numbers]


def test_a_client_with_many_jobs_does_not_keep_another_waiting() -> None:
    waiting = queue(*of("many", 1, 2, 3, 4), *of("few", 11, 12, arrived=3.0))
    order = [taken(waiting)[0] for _ in range(6)]
    assert order == [1, 11, 2, 12, 3, 4]


def test_turns_are_of_equal_time_and_not_of_equal_number() -> None:
    waiting = queue(*of("long", 1, 2, 3, cost=3.0), *of("short", *range(11, 20), cost=1.0))
    order = [taken(waiting)[0] for _ in range(12)]
    assert order == [11, 12, 1, 13, 14, 15, 2, 16, 17, 18, 3, 19]


def test_within_a_client_the_more_urgent_goes_first() -> None:
    waiting = queue(*of("a", 1, cost=9.0), *of("a", 2, cost=0.1, arrived=5.0), *of("b", 3, cost=5))
    assert [taken(waiting)[0] for _ in range(3)] == [2, 3, 1]


def test_one_who_asked_for_nothing_has_saved_nothing_up() -> None:
    waiting = queue(*of("busy", *range(10)), *of("late", 100))
    assert [taken(waiting)[0] for _ in range(6)] == [0, 100, 1, 2, 3, 4]
    for late in of("late", 101, 102, 103, 104, arrived=9.0):
        waiting.add(late)
    assert [taken(waiting)[0] for _ in range(6)] == [101, 5, 102, 6, 103, 7]


def test_one_who_had_the_queue_alone_owes_nothing_later() -> None:
    waiting = queue(*of("a", *range(50)))
    for _ in range(50):
        waiting.take()
    for each in (*of("a", 51, 52), *of("b", 61, 62)):
        waiting.add(each)
    assert [taken(waiting)[0] for _ in range(4)] == [51, 61, 52, 62]


def test_company_counts_for_the_client_whose_job_it_is() -> None:
    waiting = queue(job(1, client="a"), job(2, client="b"), *of("a", 3), *of("b", 4), limit=200)
    assert taken(waiting) == [1, 2]
    assert [taken(waiting)[0] for _ in range(2)] == [3, 4]


# Company of the same size


def test_equal_sizes_share_a_run_up_to_the_pixel_limit() -> None:
    waiting = queue(*(job(key) for key in range(5)), limit=399)
    assert taken(waiting) == [0, 1, 2]
    assert taken(waiting) == [3, 4]


def test_the_most_urgent_takes_along_the_oldest_of_its_size() -> None:
    urgent = job(9, arrived=2.0, cost=0.1)
    waiting = queue(job(1), job(2, 10, 11), job(3), urgent, limit=200)
    assert taken(waiting) == [9, 1]


def test_a_portrait_and_a_landscape_of_equal_area_do_not_share_a_run() -> None:
    waiting = queue(job(1, 10, 20), job(2, 20, 10))
    assert taken(waiting) == [1]
    assert taken(waiting) == [2]


def test_an_image_larger_than_a_batch_runs_alone() -> None:
    waiting = queue(job(1, 100, 100), job(2, 100, 100), job(3), limit=1000)
    assert [taken(waiting) for _ in range(3)] == [[1], [2], [3]]


def test_equal_jobs_are_shared_among_the_free_workers() -> None:
    waiting = queue(*(job(key) for key in range(5)))
    assert taken(waiting, workers=2) == [0, 1, 2]
    assert taken(waiting, workers=1) == [3, 4]


def test_more_workers_than_jobs_each_get_one() -> None:
    waiting = queue(job(1), job(2))
    assert taken(waiting, workers=8) == [1]
    assert taken(waiting, workers=7) == [2]


def test_equal_jobs_are_shared_among_the_free_workers_where_sizes_may_mix_too() -> None:
    net = Group("net", Costs(plain=Line(1.0, 1e-3), ragged=Line(1.1, 1.1e-3)))
    waiting = queue(*(job(key, group=net) for key in range(4)))
    assert taken(waiting, workers=2) == [0, 1]
    assert taken(waiting, workers=1) == [2, 3]


def test_a_batch_grows_only_until_the_fixed_cost_of_a_call_is_a_small_part_of_it() -> None:
    line = Line(base=2.0, pixel=0.1)  # a job takes 2 + 10 seconds: ten make 2 % of base
    waiting = queue(*(job(key, group=Group("net", Costs(line))) for key in range(30)), limit=9999)
    batch = waiting.take()
    assert batch is not None
    assert len(batch.jobs) == 10
    assert line.base / batch.cost == pytest.approx(0.02, rel=0.05)


def test_where_a_call_costs_nothing_company_is_worth_nothing() -> None:
    net = Group("net", Costs(Line(0.0, 0.01)))
    assert taken(queue(job(1, group=net), job(2, group=net))) == [1]


def test_where_only_the_call_costs_the_pixel_limit_alone_counts() -> None:
    net = Group("net", Costs(Line(1.0, 0.0)))
    assert len(taken(queue(*(job(key, group=net) for key in range(30)), limit=2000))) == 20


def test_jobs_of_different_groups_never_share() -> None:
    waiting = queue(job(1, group=NET), job(2, group=OTHER), job(3, group=NET))
    assert taken(waiting) == [1, 3]
    assert taken(waiting) == [2]


def test_jobs_without_a_group_run_alone() -> None:
    waiting = queue(job(1, group=None), job(2, group=None), job(3, group=NET))
    assert [taken(waiting) for _ in range(3)] == [[1], [2], [3]]


# Company of other sizes

MIXES = Group("mixes", Costs(plain=Line(1.0, 1e-3), ragged=Line(1.3, 1.3e-3)))


def test_thumbnails_of_different_sizes_share_a_run_where_that_is_predicted_to_save_time() -> None:
    # Together 1.3 + 1.3 · 288e-3 = 1.67 seconds, apart 1.1 + 1.144.
    batch = queue(job(1, 10, 10, MIXES), job(2, 12, 12, MIXES)).take()
    assert batch is not None
    assert keys(batch.jobs) == [1, 2]
    assert batch.mixed
    assert batch.cost == pytest.approx(1.3 + 1.3e-3 * 288)


def test_photos_of_different_sizes_run_apart_where_padding_would_eat_the_gain() -> None:
    # Together 1.3 + 1.3 · 20 seconds, apart 1 + 10 and 1 + 8.1.
    waiting = queue(job(1, 100, 100, MIXES), job(2, 90, 90, MIXES), limit=99999)
    assert taken(waiting) == [1]
    assert taken(waiting) == [2]


@pytest.mark.parametrize(("waiting", "together"), [(4, 1), (5, 5)])
def test_a_mixed_run_that_costs_much_is_begun_only_with_enough_company(
    waiting: int, together: int
) -> None:
    # Four together take 5.02 seconds, apart 4.34; five together 5.22, apart 5.45.
    net = Group("net", Costs(plain=Line(1.0, 1e-3), ragged=Line(4.5, 1.3e-3)))
    assert len(taken(queue(*(job(n, 10, 7 + n, net) for n in range(waiting))))) == together


def test_sizes_never_mix_without_a_ragged_graph() -> None:
    net = Group("net", Costs(Line(1000.0, 1e-3), ragged=None))
    waiting = queue(job(1, 10, 10, net), job(2, 10, 11, net))
    assert taken(waiting) == [1]


def test_other_sizes_join_nearest_first() -> None:
    far, near = job(2, 14, 14, MIXES), job(3, 11, 11, MIXES)
    assert taken(queue(job(1, 10, 10, MIXES), far, near, limit=400)) == [1, 3]


def test_mixed_sizes_keep_to_the_pixels_of_their_canvas_not_of_their_images() -> None:
    free = Group("free", Costs(Line(1.0, 1e-3), ragged=FREE))
    flat, tall, similar = job(1, 1, 50, free), job(2, 50, 1, free), job(3, 2, 50, free)
    waiting = queue(flat, tall, similar, limit=1000)  # flat and tall need 2 · 50 · 50
    assert taken(waiting) == [1, 3]


def test_a_canvas_is_as_tall_as_the_tallest_and_as_wide_as_the_widest() -> None:
    free = Group("free", Costs(Line(1.0, 1e-3), ragged=FREE))
    first, wide, tall = job(1, 10, 10, free), job(2, 10, 20, free), job(3, 20, 10, free)
    assert taken(queue(first, wide, tall, limit=1000)) == [1, 2]  # 3 · 20 · 20 with the tall one
    assert taken(queue(first, wide, tall, limit=1200)) == [1, 2, 3]


def test_each_that_joins_is_weighed_against_all_that_joined_before() -> None:
    # The tenth adds 1.3 · (1.9 - 1.62) seconds of canvas to nine, and saves 1.19; to the first
    # alone it would add 1.3 · 1.8.
    waiting = queue(*(job(key, 10, 10 + key, MIXES) for key in range(10)), limit=9999)
    assert sorted(taken(waiting)) == list(range(10))


def test_company_that_saves_nothing_is_left_out_and_the_next_is_still_asked() -> None:
    # The nearer would add 1.3 · 2.0 seconds of canvas to save a run of 2.2; the tiny one adds
    # 1.3 · 0.4, all of it padding, and saves 1.004.
    nearer, tiny = job(2, 40, 30, MIXES), job(3, 2, 2, MIXES)
    assert taken(queue(job(1, 20, 20, MIXES), nearer, tiny, limit=99999)) == [1, 3]


# Pinned canvases


def pinned(*canvases: Canvas, plain: Line = NET.costs.plain) -> Group:
    return Group("pinned", Costs(plain, canvases=canvases))


def test_of_the_canvases_the_one_with_the_least_time_for_each_image_is_taken() -> None:
    small, large = Canvas(2, 10, 10, seconds=1.0), Canvas(8, 20, 20, seconds=3.0)
    net = pinned(small, large)

    few = queue(*(job(key, group=net) for key in range(3))).take()
    many = queue(*(job(key, group=net) for key in range(8))).take()

    assert few == Batch(tuple(job(key, group=net) for key in range(2)), small)  # 1 / 2 < 3 / 3
    assert many == Batch(tuple(job(key, group=net) for key in range(8)), large)  # 3 / 8 < 1 / 2


def test_a_canvas_holds_images_of_any_size_that_fit_and_no_others() -> None:
    net = pinned(Canvas(4, 10, 20, seconds=1.0))
    sizes = [(5, 5), (10, 20), (20, 10), (11, 5), (1, 20)]
    waiting = queue(*(job(key, *size, net) for key, size in enumerate(sizes)))
    assert taken(waiting) == [0, 1, 4]


def test_a_canvas_takes_at_most_its_rows_the_oldest_first() -> None:
    net = pinned(Canvas(2, 10, 10, seconds=1.0))
    waiting = queue(*(job(key, group=net) for key in range(5)))
    assert [taken(waiting) for _ in range(3)] == [[0, 1], [2, 3], [4]]


def test_an_image_larger_than_every_canvas_runs_on_the_plain_graph() -> None:
    net = pinned(Canvas(2, 10, 10, seconds=1.0), Canvas(2, 20, 5, seconds=1.0))
    batch = queue(job(1, 20, 10, net), job(2, 20, 10, net), job(3, 5, 5, net)).take()
    assert batch is not None
    assert keys(batch.jobs) == [1, 2]
    assert batch.canvas is None


def test_a_canvas_may_be_larger_than_a_batch() -> None:
    net = pinned(Canvas(9, 10, 10, seconds=1.0))
    waiting = queue(*(job(key, group=net) for key in range(9)), limit=100)
    assert len(taken(waiting)) == 9


def test_jobs_of_another_group_stay_off_a_canvas() -> None:
    net = pinned(Canvas(9, 10, 10, seconds=1.0))
    waiting = queue(job(1, group=net), job(2, group=NET), job(3, group=None), job(4, group=net))
    assert taken(waiting) == [1, 4]


# Room


def test_the_most_urgent_job_waits_until_it_fits_the_room() -> None:
    waiting = queue(job(1, 20, 20), job(2))
    assert waiting.take(room=399) is None  # the small one would fit, and would starve the large
    assert len(waiting) == 2
    assert taken(waiting, room=400) == [1]


def test_a_batch_fits_the_room() -> None:
    assert taken(queue(*(job(key) for key in range(5))), room=250) == [0, 1]


def test_mixed_company_fits_the_room() -> None:
    waiting = queue(job(1, 10, 10, MIXES), job(2, 10, 11, MIXES), job(3, 10, 11, MIXES))
    assert taken(waiting, room=220) == [1, 2]


def test_a_canvas_that_does_not_fit_the_room_is_not_taken() -> None:
    small, large = Canvas(2, 10, 10, seconds=1.0), Canvas(8, 10, 10, seconds=1.0)
    batch = queue(*(job(key, group=pinned(small, large)) for key in range(8))).take(room=799)
    assert batch is not None
    assert batch.canvas == small


def test_decoding_waits_for_no_room() -> None:
    assert taken(queue(job(1, group=None), job(2)), room=0) == [1]


# Leaving


def test_late_jobs_are_taken_out_and_never_run() -> None:
    waiting = queue(job(1, deadline=5.0), job(2, deadline=9.0), job(3, deadline=4.0))
    assert keys(waiting.expire(now=5.0)) == [3, 1]
    assert waiting.expire(now=5.0) == []
    assert taken(waiting) == [2]


def test_a_job_that_runs_does_not_expire() -> None:
    waiting = queue(job(1, 10, 10, deadline=5.0), job(2, 20, 20, deadline=5.0))
    assert taken(waiting) == [1]
    assert keys(waiting.expire(now=6.0)) == [2]


def test_a_removed_job_never_runs() -> None:
    waiting = queue(job(1), job(2), job(3))
    assert waiting.remove(2)
    assert not waiting.remove(2)
    assert taken(waiting) == [1, 3]
    assert not waiting.remove(1)


# A batch


@pytest.mark.parametrize(
    ("batch", "shape", "mixed", "cost"),
    [
        (Batch((job(1, 4, 5, MIXES), job(2, 4, 5, MIXES))), (2, 4, 5), False, 1 + 0.04),
        (Batch((job(1, 4, 5, MIXES), job(2, 6, 3, MIXES))), (2, 6, 5), True, 1.3 * (1 + 0.06)),
        (Batch((job(1, 4, 5, NET),), Canvas(7, 8, 9, seconds=3.5)), (7, 8, 9), False, 3.5),
        (Batch((job(1, 4, 5, None, cost=0.25),)), (1, 4, 5), False, 0.25),
    ],
    ids=["equal", "mixed", "pinned", "decoding"],
)
def test_a_batch_knows_its_shape_and_what_it_should_take(
    batch: Batch, shape: tuple[int, int, int], mixed: bool, cost: float
) -> None:
    assert batch.shape == shape
    assert batch.pixels == shape[0] * shape[1] * shape[2]
    assert batch.mixed is mixed
    assert batch.cost == pytest.approx(cost)


# Whatever happens

GROUPS = (
    None,
    Group("equal", Costs(Line(0.02, 0.02))),  # company is worth it up to 50 pixels
    Group("equal too", Costs(Line(1.0, 0.0))),
    Group("mixed", Costs(Line(1.0, 0.02), Line(1.2, 0.024))),
    Group("never timed", Costs(Line(1.0, 0.02), FREE)),
    Group("pinned", Costs(Line(0.1, 0.02), None, [Canvas(4, 3, 3, 0.8), Canvas(2, 6, 4, 1.0)])),
    Group("both", Costs(Line(0.1, 0.02), Line(0.12, 0.024), [Canvas(3, 5, 5, 1.0)])),
)


@dataclass(frozen=True, slots=True)
class Add:
    """After a while a job comes."""

    after: float
    group: Group | None
    size: tuple[int, int]
    cost: float
    lasts: float


@dataclass(frozen=True, slots=True)
class Remove:
    """A client goes away; it may have been answered already."""

    key: int


@dataclass(frozen=True, slots=True)
class Expire:
    """After a while the clock is looked at."""

    after: float


@dataclass(frozen=True, slots=True)
class Take:
    """A worker is free."""

    workers: int
    room: float


Step = Add | Remove | Expire | Take
adds = st.builds(
    Add,
    after=st.floats(0, 2),
    group=st.sampled_from(GROUPS),
    size=st.sampled_from([(2, 2), (2, 3), (3, 2), (4, 5), (6, 4), (1, 9)]),
    cost=st.floats(0.01, 3),
    lasts=st.floats(0, 20),
)
takes = st.builds(Take, st.integers(1, 4), st.one_of(st.just(FOREVER), st.integers(0, 60)))
removes = st.builds(Remove, st.integers(0, 30))
expires = st.builds(Expire, st.floats(0, 5))
# Many adds and many steps, or queues would seldom be long.
steps = st.lists(st.one_of(adds, adds, adds, takes, removes, expires), min_size=15, max_size=60)
limits = st.integers(1, 200)
patiences = st.sampled_from([0.0, 1.0, 10.0])


@dataclass(frozen=True, slots=True)
class Choice:
    """What was taken, of what waited just before, oldest first."""

    waiting: Sequence[Job]
    workers: int
    room: float
    batch: Batch | None


@dataclass(slots=True)
class Story:
    """What became of every job."""

    added: list[int] = field(default_factory=list)
    removed: list[int] = field(default_factory=list)
    expired: list[int] = field(default_factory=list)
    choices: list[Choice] = field(default_factory=list)

    @property
    def ran(self) -> list[int]:
        return [key for c in self.choices if c.batch is not None for key in keys(c.batch.jobs)]


def live(waiting: Queue, lived: Sequence[Step], clients: Sequence[str | None] = (None,)) -> Story:
    """Do all that to a queue, then take until nothing waits. Jobs are the clients' by turns."""
    story, now = Story(), 0.0
    there: dict[int, Job] = {}

    def take(workers: int, room: float) -> bool:
        batch = waiting.take(workers, room)
        story.choices.append(Choice(list(there.values()), workers, room, batch))
        for each in batch.jobs if batch is not None else ():
            del there[each.key]  # fails if it ran before, or had left
        return batch is not None

    for step in lived:
        match step:
            case Add():
                now += step.after
                key = len(story.added)
                whose = clients[key % len(clients)]
                each = Job(key, step.group, *step.size, step.cost, now, now + step.lasts, whose)
                waiting.add(each)
                story.added.append(key)
                there[key] = each
            case Remove():
                assert waiting.remove(step.key) is (step.key in there)
                if there.pop(step.key, None):
                    story.removed.append(step.key)
            case Expire():
                now += step.after
                late = waiting.expire(now)
                assert sorted(keys(late)) == [k for k, j in there.items() if j.deadline <= now]
                story.expired += keys(late)
                there = {key: each for key, each in there.items() if each not in late}
            case Take():
                take(step.workers, step.room)
        assert len(waiting) == len(there)
    while take(1, FOREVER):
        pass
    assert len(waiting) == 0
    return story


@given(steps, limits, patiences)
def test_every_job_runs_once_or_expires_once_or_is_removed_once(
    lived: list[Step], limit: int, patience: float
) -> None:
    story = live(Queue(limit, patience), lived)
    assert sorted(story.ran + story.expired + story.removed) == story.added


@given(steps, limits, patiences)
def test_the_most_urgent_leads_each_batch_and_only_want_of_room_holds_it_back(
    lived: list[Step], limit: int, patience: float
) -> None:
    for choice in live(Queue(limit, patience), lived).choices:
        if not choice.waiting:
            assert choice.batch is None
            continue
        first = min(choice.waiting, key=lambda each: each.arrived + patience * each.cost)
        if first.group is not None and first.pixels > choice.room:
            assert choice.batch is None
        else:
            assert choice.batch is not None
            assert choice.batch.jobs[0] is first


@given(steps, limits, patiences)
def test_no_batch_breaks_a_limit_or_mixes_what_may_not_mix(
    lived: list[Step], limit: int, patience: float
) -> None:
    for choice in live(Queue(limit, patience), lived).choices:
        batch = choice.batch
        if batch is None:
            continue
        group = batch.jobs[0].group
        assert {each.group for each in batch.jobs} == {group}
        if group is None:
            assert len(batch.jobs) == 1
            assert batch.canvas is None
            continue
        assert batch.pixels <= choice.room
        if batch.canvas is not None:
            assert batch.canvas in group.costs.canvases
            assert len(batch.jobs) <= batch.canvas.rows
            assert all(batch.canvas.holds(each.height, each.width) for each in batch.jobs)
            continue
        assert len(batch.jobs) == 1 or batch.pixels <= limit
        assert not batch.mixed or group.costs.ragged is not None


@given(steps, limits, patiences)
def test_a_plain_or_mixed_batch_never_costs_more_than_its_jobs_apart(
    lived: list[Step], limit: int, patience: float
) -> None:
    for choice in live(Queue(limit, patience), lived).choices:
        batch = choice.batch
        if batch is None or batch.canvas is not None or len(batch.jobs) == 1:
            continue
        group = batch.jobs[0].group
        assert group is not None
        apart = sum(group.costs.plain.seconds(each.pixels) for each in batch.jobs)
        assert batch.cost <= apart + 1e-9


@given(steps, limits, patiences)
def test_equal_batches_are_no_more_than_a_worker_s_share(
    lived: list[Step], limit: int, patience: float
) -> None:
    for choice in live(Queue(limit, patience), lived).choices:
        batch = choice.batch
        if batch is None or batch.canvas is not None:
            continue
        first = batch.jobs[0]
        if first.group is None or first.group.costs.ragged is not None:
            continue
        size = (first.group, first.height, first.width)
        alike = sum((each.group, each.height, each.width) == size for each in choice.waiting)
        assert (len(batch.jobs) - 1) * choice.workers < alike  # at most alike / workers, rounded up


@given(steps, limits, patiences)
def test_no_canvas_would_take_less_time_for_each_image(
    lived: list[Step], limit: int, patience: float
) -> None:
    for choice in live(Queue(limit, patience), lived).choices:
        batch = choice.batch
        if batch is None or batch.jobs[0].group is None:
            continue
        first, group = batch.jobs[0], batch.jobs[0].group
        times = []
        for canvas in group.costs.canvases:
            if canvas.holds(first.height, first.width) and canvas.pixels <= choice.room:
                mates = [each for each in choice.waiting if each.group == group]
                fit = sum(canvas.holds(each.height, each.width) for each in mates)
                times.append(canvas.seconds / min(canvas.rows, fit))
        assert (batch.canvas is not None) == bool(times)
        if batch.canvas is not None:
            assert batch.canvas.seconds / len(batch.jobs) == min(times)


@given(steps, limits, patiences)
def test_one_client_s_jobs_run_as_if_there_were_no_clients(
    lived: list[Step], limit: int, patience: float
) -> None:
    nobody = live(Queue(limit, patience), lived)
    somebody = live(Queue(limit, patience), lived, clients=["a"])
    assert [b and keys(b.jobs) for b in batches(nobody)] == [
        b and keys(b.jobs) for b in batches(somebody)
    ]


def batches(story: Story) -> list[Batch | None]:
    return [choice.batch for choice in story.choices]


@given(steps, limits, patiences)
def test_with_clients_too_every_job_runs_once_or_expires_once_or_is_removed_once(
    lived: list[Step], limit: int, patience: float
) -> None:
    story = live(Queue(limit, patience), lived, clients=["a", "b", "c"])
    assert sorted(story.ran + story.expired + story.removed) == story.added


@given(
    st.lists(st.floats(0.01, 3), min_size=1, max_size=60),
    st.lists(st.floats(0.01, 3), min_size=1, max_size=60),
    patiences,
)
def test_two_who_always_wait_are_served_the_same_time_but_for_one_job(
    a: list[float], b: list[float], patience: float
) -> None:
    waiting = Queue(1000, patience)
    for number, (client, cost) in enumerate([("a", c) for c in a] + [("b", c) for c in b]):
        waiting.add(job(number, group=None, cost=cost, client=client))
    left, served = {"a": len(a), "b": len(b)}, {"a": 0.0, "b": 0.0}
    while all(left.values()):
        batch = waiting.take()
        assert batch is not None
        client = str(batch.jobs[0].client)
        left[client] -= 1
        served[client] += batch.cost
        assert abs(served["a"] - served["b"]) <= max(a + b) + 1e-9


# Starving


def serve(waiting: Queue, coming: Sequence[Job]) -> dict[int, float]:
    """One worker, simulated: when each job begins to run."""
    begun: dict[int, float] = {}
    left, now = sorted(coming, key=lambda each: each.arrived), 0.0
    while len(begun) < len(coming):
        while left and left[0].arrived <= now:
            waiting.add(left.pop(0))
        batch = waiting.take()
        if batch is None:
            now = left[0].arrived
        else:
            assert begun.keys().isdisjoint(keys(batch.jobs))
            begun |= dict.fromkeys(keys(batch.jobs), now)
            now += batch.cost
    return begun


@given(
    load=st.floats(0.3, 3.0),
    backlog=st.integers(0, 60),
    shares=st.integers(1, 20),
    cost=st.floats(0.001, 0.02),
    patience=st.floats(0, 10),
)
def test_a_long_job_in_a_stream_of_short_ones_begins_in_a_time_that_can_be_told(
    load: float, backlog: int, shares: int, cost: float, patience: float
) -> None:
    # Before the long job (at 0) only these may go: the backlog, and the short ones that come within
    # patience · cost, which is load · patience · cost seconds of work and one more; none takes
    # longer in company than alone. And up to a batch of later ones, led by one of these.
    line = Line(1e-3, 1e-6)
    net = Group("net", Costs(line))
    short = line.seconds(100)
    many = (
        round(3 * (backlog + shares + load * patience * cost / short)) + 3
    )  # still coming by then
    queued = [job(1 + number, group=net, cost=short) for number in range(backlog)]
    stream = [
        job(1 + backlog + number, group=net, cost=short, arrived=number * short / load)
        for number in range(many)
    ]
    long = job(0, group=None, cost=cost)

    begun = serve(Queue(shares * 100, patience), [long, *queued, *stream])

    ahead = backlog * short + load * patience * cost + short
    assert begun[0] <= ahead + line.seconds(shares * 100) + 1e-9


@given(
    st.lists(st.tuples(st.floats(0, 0.5), st.floats(0.01, 2.0)), min_size=1, max_size=40),
    patiences,
)
def test_who_comes_later_than_patience_times_the_cost_of_another_does_not_overtake_it(
    drawn: list[tuple[float, float]], patience: float
) -> None:
    coming, now = [], 0.0
    for key, (after, cost) in enumerate(drawn):
        now += after
        coming.append(job(key, group=None, cost=cost, arrived=now))

    begun = serve(Queue(1000, patience), coming)

    for each in coming:
        for later in coming:
            if later.arrived > each.arrived + patience * each.cost:
                assert begun[later.key] > begun[each.key]


def test_jobs_of_other_sizes_are_shared_among_the_free_workers_too() -> None:
    net = Group("net", Costs(plain=Line(1.0, 1e-3), ragged=Line(1.1, 1.1e-3)))
    waiting = queue(*(Job(key, net, 8, 8 + key, 1.0, 0.0, 1e9) for key in range(4)))
    assert len(taken(waiting, workers=2)) == 2
    assert len(taken(waiting, workers=1)) == 2
