"""What choosing a replica gains, as ratios of simulated times: the same on every machine."""

import math
import random
import statistics
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from service.costs import Line
from tests.service.routers import (
    BySize,
    Least,
    Load,
    Router,
    View,
    by_requests,
    by_work,
)
from tests.service.routing import (
    BY_BYTES,
    BY_SIZE,
    CLIENTS,
    DOUBT,
    FEWEST,
    HERE,
    JOINT,
    RAY,
    ROUTERS,
    SCENARIOS,
    Scenario,
    photos_of_the_web,
    route,
    routers,
    run,
    settled,
)
from tests.service.simulator import (
    CPU,
    Arrival,
    Device,
    Fifo,
    Ours,
    Outcome,
    Replica,
    one_by_one,
    poisson,
    replay,
)

# The arithmetic, by hand

SLOW = Device(1, Line(1.0, 0.01), masks=2.0, replan=0.5)
SQUARE = (10, 10)  # 2 seconds, and half a second for the first


def slow(count: int, devices: int = 1) -> list[Replica]:
    return [Replica(SLOW, Fifo(one_by_one), devices) for _ in range(count)]


def sent(to: list[int], proxies: int = 1, clients: int | None = None) -> tuple[Outcome, list[View]]:
    """Equal images at once, to those of two replicas; and what the proxies knew of each."""
    known: list[View] = []

    def router(work: float, view: View) -> int:
        known.append(View(list(view.requests), list(view.work)))
        return to[len(known) - 1]

    arrivals = [Arrival(0.0, *SQUARE) for _ in to]
    done = route(arrivals, slow(2), [router] * proxies, [2.0] * len(to), clients)
    return done, known


def test_each_replica_has_a_queue_and_plans_of_its_own() -> None:
    done, _ = sent([0, 0, 1])
    assert done.answered == [2.5, 4.5, 2.5]


def test_devices_behind_one_queue_have_plans_of_their_own() -> None:
    arrivals = [Arrival(0.0, *SQUARE) for _ in range(3)]
    done = route(arrivals, slow(1, devices=2), routers(JOINT, 1, 1), [2.0] * 3)
    assert done.answered == [2.5, 2.5, 4.5]


def test_a_client_sends_when_it_has_its_answer() -> None:
    done, _ = sent([0, 0, 1], clients=1)
    assert [arrival.at for arrival in done.arrivals] == [0.0, 2.5, 4.5]
    assert done.answered == [2.5, 4.5, 7.0]


def test_a_proxy_knows_what_is_in_flight_and_what_has_ended() -> None:
    _, known = sent([0, 0, 1, 0], clients=2)
    assert [view.requests for view in known] == [[0, 0], [1, 0], [1, 0], [0, 1]]
    assert [view.work for view in known] == [[0, 0], [2.0, 0], [2.0, 0], [0, 2.0]]


def test_a_proxy_learns_of_others_requests_only_where_it_sends_its_own() -> None:
    _, known = sent([0, 1, 0, 0], proxies=2)
    assert [view.requests for view in known] == [[0, 0], [0, 0], [1, 0], [0, 1]]
    _, known = sent([0, 0, 1, 1, 0], proxies=2)
    assert known[3].requests == [2, 0]  # the first one's, and its own
    assert known[3].work == [2.0, 0.0]


# The ways to choose


def test_of_those_drawn_the_one_with_least_in_flight_is_chosen() -> None:
    view = View([5, 1, 9], [0.1, 0.2, 0.3])

    def chosen(load: Load, drawn: int | None = None) -> set[int]:
        router = Least(range(3), random.Random(1), load, drawn)
        return {router(1.0, view) for _ in range(50)}

    assert chosen(by_requests, 2) == {0, 1}
    assert chosen(by_requests) == {1}
    assert chosen(by_work) == {0}


def test_ray_chooses_on_the_machine_of_the_proxy() -> None:
    idle = View([0] * 6, [0.0] * 6)

    def chosen(router: Router) -> set[int]:
        return {router(1.0, idle) for _ in range(100)}

    assert [chosen(router) for router in routers(RAY, 6, 2)] == [{0, 1, 2}, {3, 4, 5}]
    assert [chosen(router) for router in routers(FEWEST, 6, 2)] == [set(range(6))] * 2


def taught(replicas: int, work: list[float], times: int = 100) -> BySize:
    """A router that has seen such requests."""
    router = BySize(replicas, random.Random(1), by_work)
    idle = View([0] * replicas, [0.0] * replicas)
    for _ in range(times):
        for seconds in work:
            router(seconds, idle)
    return router


def test_equal_sizes_go_to_the_same_replica_and_larger_ones_to_later_ones() -> None:
    router = taught(4, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0])  # parts of 9
    idle = View([0] * 4, [0.0] * 4)
    for _ in range(3):
        chosen = [router(seconds, idle) for seconds in (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0)]
        assert chosen == [0, 0, 0, 0, 1, 2, 2, 3]


def test_a_size_with_the_work_of_several_replicas_has_them_to_itself() -> None:
    router = taught(4, [1.0] * 4 + [6.0] * 2)  # a quarter, and three
    assert {router(1.0, View([0] * 4, [0.0] * 4)) for _ in range(20)} == {0}
    assert {router(6.0, View([0] * 4, [0.0] * 4)) for _ in range(50)} == {1, 2, 3}


def test_beside_an_overloaded_replica_its_neighbour_is_chosen() -> None:
    router = taught(4, [1.0, 2.0, 3.0, 4.0])
    assert router(1.0, View([0] * 4, [9.0, 9.0, 9.0, 9.0])) == 0
    assert router(1.0, View([0] * 4, [20.0, 9.0, 9.0, 9.0])) == 1
    assert router(1.0, View([0] * 4, [20.0, 20.0, 9.0, 9.0])) == 2


def test_bands_follow_what_comes() -> None:
    router = taught(2, [1.0, 2.0, 3.0])
    idle = View([0, 0], [0.0, 0.0])
    assert router(3.0, idle) == 1
    for _ in range(2000):
        router(3.0, idle), router(9.0, idle)
    assert router(3.0, idle) == 0


@pytest.mark.parametrize("name", sorted(ROUTERS))
def test_with_one_replica_every_way_is_the_same(name: str) -> None:
    arrivals = poisson(1, 500, 60.0, photos_of_the_web)
    alone = Replica(CPU, Ours(CPU, mixed=True, pinned=False))
    done = route(arrivals, [alone], routers(name, 1, 1), [1.0] * 500)
    assert done == replay(arrivals, CPU, Ours(CPU, mixed=True, pinned=False))


@pytest.mark.parametrize("name", sorted(ROUTERS))
@settings(max_examples=30)
@given(
    drawn=st.lists(
        st.tuples(st.floats(0, 0.1), st.integers(1, 1100), st.integers(1, 1100)), max_size=30
    ),
    scenario=st.sampled_from(SCENARIOS),
    machines=st.integers(1, 3),
    each=st.integers(1, 3),
    clients=st.sampled_from([None, 1, 5]),
)
def test_every_arrival_is_answered_once_and_none_in_less_than_its_work(
    name: str,
    drawn: list[tuple[float, int, int]],
    scenario: Scenario,
    machines: int,
    each: int,
    clients: int | None,
) -> None:
    now = 0.0
    arrivals = [Arrival(now := now + after, height, width) for after, height, width in drawn]
    work = [scenario.work(a.height * a.width) for a in arrivals]
    replicas = machines * each

    proxies = routers(name, replicas, machines)
    done = route(arrivals, scenario.replicas(replicas), proxies, work, clients)

    assert sorted(n for each in done.runs for n in each.members) == list(range(len(arrivals)))
    for arrival, end in zip(done.arrivals, done.answered, strict=True):
        least = scenario.device.line.seconds(arrival.height * arrival.width)
        assert arrival.at + least - 1e-9 <= end < float("inf")


# The claims


def titled(title: str) -> Scenario:
    return next(s for s in SCENARIOS if s.title == title)


@cache
def eight(title: str) -> list[Arrival]:
    return titled(title).arrivals(8, 4000)


@cache
def steady(title: str, name: str) -> Outcome:
    """Eight replicas at 80 % load."""
    return settled(run(titled(title), 8, eight(title), name))


def gain(title: str, name: str, over: str, size_class: str) -> float:
    """How many times shorter the p99 is."""
    return steady(title, over).p99(size_class) / steady(title, name).p99(size_class)


def saturated(title: str, name: str) -> float:
    """Images a second of eight replicas."""
    return run(titled(title), 8, eight(title), name, 8 * CLIENTS).throughput


def test_sizes_known_thumbnails_wait_for_no_large_image() -> None:
    assert gain("CPU, thumbnails and 1024²", BY_SIZE, RAY, "small") > 50
    assert gain("CPU, thumbnails and 1024²", BY_SIZE, RAY, "large") > 1


def test_an_application_of_their_own_spares_thumbnails_the_same() -> None:
    title = "CPU, thumbnails and 1024²"
    work = [titled(title).work(a.height * a.width) for a in eight(title)]
    for_large = Least(range(1, 8), random.Random(1), by_requests, 2)

    def router(work: float, view: View) -> int:
        return 0 if work < 0.1 else for_large(work, view)

    done = settled(route(eight(title), titled(title).replicas(8), [router], work))
    assert done.p99("small") < steady(title, RAY).p99("small") / 50
    assert done.p99("large") < steady(title, RAY).p99("large") * 1.1


def test_sizes_guessed_from_bytes_they_wait_as_before() -> None:
    assert gain("CPU, thumbnails and 1024²", BY_BYTES, RAY, "small") < 1.1


def test_where_all_are_of_one_size_nothing_is_gained_by_it() -> None:
    assert gain("CPU, photos of the web, fit 320", BY_SIZE, RAY, "medium") < 1.1
    assert gain("CPU, photos of the web, fit 320", BY_BYTES, RAY, "medium") < 1


def test_fewest_of_all_waits_less_than_fewer_of_two_on_cpus() -> None:
    assert gain("CPU, photos of the web, fit 320", HERE, RAY, "medium") > 1.15
    for size_class in ("small", "medium", "large"):
        assert gain("CPU, photos of the web", HERE, RAY, size_class) > 1


def test_on_cpus_no_way_answers_more() -> None:
    ray, *others = (saturated("CPU, photos of the web", n) for n in (RAY, BY_SIZE, BY_BYTES, JOINT))
    assert all(other < 1.1 * ray for other in others)


def test_on_gpus_sizes_spare_plans_and_nothing_else() -> None:
    ray, sizes, guessed = (saturated("GPU, photos of the web", n) for n in (RAY, BY_SIZE, BY_BYTES))
    assert sizes > 1.15 * ray
    assert guessed < 1.05 * ray
    title = "GPU that need not plan, photos of the web"
    assert saturated(title, BY_SIZE) < 1.05 * saturated(title, RAY)


def test_bytes_a_pixel_differ_between_photos_as_simulated() -> None:
    logs = []
    for path in sorted((Path(__file__).parent.parent / "photos").iterdir()):
        if path.suffix in (".jpg", ".webp"):
            with Image.open(path) as image:
                logs.append(math.log(path.stat().st_size / (image.width * image.height)))
    assert statistics.stdev(logs) == pytest.approx(DOUBT, abs=0.02)
