"""What our law gains over others, as ratios of simulated times: the same on every machine."""

import statistics
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.costs import Line
from tests.service.simulator import (
    CPU,
    GPU,
    Arrival,
    Device,
    Fifo,
    Ours,
    Outcome,
    Policy,
    capacity,
    eight_on_one_canvas,
    fifty_sizes,
    one_by_one,
    poisson,
    policies,
    replay,
    thumbnails_and_large,
    until_the_size_differs,
)

# The arithmetic, by hand

SLOW = Device(1, Line(1.0, 0.01), masks=2.0, replan=0.5)
SQUARE, WIDE = (10, 10), (10, 20)  # 2 and 3 seconds


def test_the_second_arrival_waits_for_the_first() -> None:
    done = replay([Arrival(4.0, *SQUARE), Arrival(5.0, *WIDE)], SLOW, Fifo(one_by_one))
    assert done.answered == [6.5, 10.0]  # 4 + 2 + 0.5, then 3 + 0.5
    assert done.latencies("small") == [2.5, 5.0]
    assert done.mean("small") == 3.75
    assert done.throughput == pytest.approx(2 / 6)


def test_a_second_worker_takes_the_second_arrival_at_once() -> None:
    two = Device(2, Line(1.0, 0.01), masks=2.0)
    done = replay([Arrival(4.0, *WIDE), Arrival(4.5, *SQUARE)], two, Fifo(one_by_one))
    assert done.answered == [7.0, 6.5]


def test_the_same_shape_again_needs_no_new_plan() -> None:
    done = replay([Arrival(0.0, *SQUARE), Arrival(0.0, *SQUARE)], SLOW, Fifo(one_by_one))
    assert done.answered == [2.5, 4.5]


def test_mixed_sizes_pay_for_the_canvas_and_the_masks() -> None:
    arrivals = [Arrival(0.0, *SQUARE), Arrival(1.0, *SQUARE), Arrival(2.0, 20, 10)]
    done = replay(arrivals, SLOW, Fifo(eight_on_one_canvas))
    assert done.answered == [2.5, 13.0, 13.0]  # 2 · 20 · 10 pixels: (1 + 4) · 2 + 0.5


def test_a_new_size_ends_a_run_under_triton_s_rule() -> None:
    arrivals = [Arrival(0.0, *size) for size in (SQUARE, SQUARE, SQUARE, WIDE, SQUARE)]
    done = replay(arrivals, SLOW, Fifo(until_the_size_differs))
    assert [list(run.members) for run in done.runs] == [[0], [1, 2], [3], [4]]
    assert done.answered == [2.5, 6.0, 6.0, 9.5, 12.0]  # a plan for each shape, n included


def test_a_pinned_canvas_costs_all_its_rows_and_one_plan() -> None:
    device = Device(1, Line(0.0, 1e-6), masks=2.0, replan=0.5)
    arrivals = [Arrival(0.0, 96, 96), Arrival(0.0, 90, 80), Arrival(9.0, 50, 50)]
    done = replay(arrivals, device, Ours(device, mixed=False, pinned=True))
    run = 2e-6 * 32 * 96 * 96
    assert done.answered == pytest.approx([0.5 + run, 0.5 + 2 * run, 9.0 + run])


# The claims


@pytest.fixture(scope="module")
def on_cpu() -> dict[str, Outcome]:
    """90 % thumbnails and 10 % 1024², at 80 % of what the device can do."""
    rate = 0.8 * capacity(CPU, thumbnails_and_large)
    arrivals = poisson(1, 20_000, rate, thumbnails_and_large)
    compared = policies(CPU)
    wanted = ("FIFO one by one", "ours, equal sizes", "ours, mixed sizes")
    return {name: replay(arrivals, CPU, compared[name]) for name in wanted}


@pytest.mark.parametrize("ours", ["ours, equal sizes", "ours, mixed sizes"])
def test_thumbnails_wait_less_than_half_as_long_and_large_images_hardly_longer(
    on_cpu: dict[str, Outcome], ours: str
) -> None:
    fifo, done = on_cpu["FIFO one by one"], on_cpu[ours]
    assert done.mean("small") <= 0.45 * fifo.mean("small")
    assert done.p99("small") <= 0.45 * fifo.p99("small")
    assert done.p99("large") <= 1.5 * fifo.p99("large")
    assert done.throughput == pytest.approx(fifo.throughput, rel=0.01)


def test_without_patience_thumbnails_wait_for_large_images_as_in_fifo(
    on_cpu: dict[str, Outcome],
) -> None:
    fifo = on_cpu["FIFO one by one"]
    control = Ours(CPU, mixed=False, pinned=False, patience=0.0)
    done = replay(fifo.arrivals, CPU, control)
    assert done.mean("small") > 0.8 * fifo.mean("small")


def test_a_gpu_that_plans_for_each_shape_answers_three_times_as_many_on_pinned_canvases() -> None:
    arrivals = poisson(1, 5_000, 1e6, fifty_sizes)
    compared = policies(GPU)
    cut = replay(arrivals, GPU, compared["FIFO cut (Triton)"])
    pinned = replay(arrivals, GPU, compared["ours, pinned"])
    assert pinned.throughput >= 3 * cut.throughput


def test_on_a_gpu_that_plans_for_each_shape_only_pinned_canvases_spare_images_that_wait() -> None:
    arrivals = poisson(1, 5_000, 0.8 * capacity(GPU, thumbnails_and_large), thumbnails_and_large)
    compared = policies(GPU)
    pinned = replay(arrivals, GPU, compared["ours, pinned"])
    for other in ("FIFO cut (Triton)", "ours, equal sizes", "ours, mixed sizes"):
        assert pinned.mean("small") <= 0.2 * replay(arrivals, GPU, compared[other]).mean("small")


def test_the_same_seed_gives_the_same_arrivals() -> None:
    first, second = (poisson(7, 100, 10.0, fifty_sizes) for _ in range(2))
    assert first == second


# Keys


def waits_of_thrifty(flood: list[Arrival], keyed: bool) -> list[float]:
    """Latencies of one who asks for a twentieth of the device, beside a flood."""
    mine = poisson(2, 500, 0.05 * capacity(CPU, fifty_sizes), fifty_sizes)
    flooding, thrifty = ("flooding", "thrifty") if keyed else (None, None)
    arrivals = [replace(a, client=flooding) for a in flood if a.at < mine[-1].at]
    arrivals = sorted(
        arrivals + [replace(a, client=thrifty) for a in mine], key=lambda arrival: arrival.at
    )
    done = replay(arrivals, CPU, Ours(CPU, mixed=False, pinned=False))
    times = {arrival.at for arrival in mine}
    return [
        end - arrival.at
        for arrival, end in zip(done.arrivals, done.answered, strict=True)
        if arrival.at in times
    ]


def test_beside_a_key_that_floods_another_one_waits_for_what_runs_and_no_more() -> None:
    flood = poisson(1, 40_000, 2 * capacity(CPU, fifty_sizes), fifty_sizes)
    alone, beside = waits_of_thrifty([], keyed=True), waits_of_thrifty(flood, keyed=True)
    run = CPU.line.seconds(358 * 358)  # the largest there is
    assert statistics.fmean(beside) <= statistics.fmean(alone) + run
    assert max(beside) <= max(alone) + 2 * run
    control = waits_of_thrifty(flood, keyed=False)
    assert statistics.fmean(control) > 100 * statistics.fmean(beside)


# Whatever arrives

sizes = st.one_of(
    st.sampled_from([(32, 32), (40, 30), (64, 64), (224, 224), (300, 200)]),
    st.tuples(st.integers(1, 1100), st.integers(1, 1100)),
)


@pytest.mark.parametrize("name", sorted(policies(CPU)))
@pytest.mark.parametrize("device", [CPU, GPU], ids=["CPU", "GPU"])
@given(drawn=st.lists(st.tuples(st.floats(0, 0.1), sizes), max_size=30))
def test_every_policy_answers_every_arrival_once_and_none_in_less_than_its_work(
    device: Device, name: str, drawn: list[tuple[float, tuple[int, int]]]
) -> None:
    arrivals, now = [], 0.0
    for after, size in drawn:
        now += after
        arrivals.append(Arrival(now, *size))
    policy: Policy = policies(device)[name]

    done = replay(arrivals, device, policy)

    ran = [number for run in done.runs for number in run.members]
    assert sorted(ran) == list(range(len(arrivals)))
    for arrival, end in zip(arrivals, done.answered, strict=True):
        work = device.line.seconds(arrival.height * arrival.width)
        assert arrival.at + work - 1e-9 <= end < float("inf")
