"""On a real GPU: `make test-gpu EXTRA=gpu`. What is measured goes to build/gpu-report.md."""

from pathlib import Path

import pytest

from service.costs import Canvas
from service.engine import Engine
from service.golden import check
from service.sessions import Gpu, Search, Sessions
from service.trials import table, usual_sizes
from tests.gpu.conftest import FIRST
from tests.gpu.measuring import (
    alternating,
    apart,
    company,
    computes_tf32,
    first_request,
    kept_mb,
    memory_over_shapes,
    noise,
    parity,
    throughput,
)
from tests.gpu.report import Report

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(1200)]

SIZES = [(32, 32), (33, 190), (64, 64), (97, 45), (213, 320), (320, 320), (511, 384)]
SEARCHES: tuple[Search, ...] = ("HEURISTIC", "EXHAUSTIVE", "DEFAULT")


def test_the_gpu_answers_as_the_cpu(gpu: Engine, cpu: Engine, report: Report) -> None:
    assert gpu.devices == ("cuda:0",)
    found = parity(gpu, cpu, SIZES)
    report.note("CUDA against CPU, worst difference of largest logit", found)
    assert found <= gpu.card.tolerances[gpu.provider]


def test_the_gpu_answers_as_torch_did(gpu: Engine, folder: Path, report: Report) -> None:
    cases = list(check(gpu, folder))
    report.note("CUDA against torch and in company, worst", max(case.error for case in cases))
    assert [case for case in cases if case.problem is not None] == []


def test_tf32_is_off_and_would_round(
    folder: Path, gpu: Engine, cpu: Engine, report: Report
) -> None:
    told = Sessions(folder, "cuda:0", FIRST, [], mixes=False).plain.get_provider_options()
    assert told[gpu.provider]["use_tf32"] == "0"
    coarse = Engine(folder, "cuda", gpu=Gpu(devices=(0,), tf32=True))
    found = parity(coarse, cpu, SIZES)
    report.note("with TF32 against CPU, worst difference of largest logit", found)
    if computes_tf32(0):
        assert found > 10 * parity(gpu, cpu, SIZES)  # 13 bits fewer: about a thousand times


def test_company_changes_nothing(gpu: Engine, report: Report) -> None:
    found = company(gpu, SIZES)
    report.note("mixed batch against alone, worst difference of largest logit", found)
    assert found <= gpu.card.mixed.tolerances[gpu.provider]


def test_company_on_a_pinned_canvas_changes_nothing(folder: Path, report: Report) -> None:
    canvas = Canvas(8, 512, 512)
    pinned = Engine(folder, "cuda", canvases=[canvas], gpu=FIRST)
    found = company(pinned, SIZES, canvas)
    report.note("pinned canvas against alone, worst difference of largest logit", found)
    assert found <= pinned.card.mixed.tolerances[pinned.provider]


@pytest.mark.parametrize("search", SEARCHES)
def test_report_of_two_shapes_in_turn_against_one_repeated(
    folder: Path, report: Report, search: Search
) -> None:
    engine = Engine(folder, "cuda", gpu=Gpu(devices=(0,), search=search))
    in_turn, repeated = alternating(engine, (213, 320), (320, 240), runs=50)
    report.note(f"{search}: ms a run, two shapes in turn", in_turn)
    report.note(f"{search}: ms a run, one shape repeated", repeated)
    report.note(f"{search}: ms to plan anew", in_turn - repeated)


def test_memory_does_not_grow_with_the_number_of_shapes(gpu: Engine, report: Report) -> None:
    early, late = memory_over_shapes(gpu, shapes=2000, largest=512)
    report.note("MB of the GPU in use after 200 shapes", early)
    report.note("MB of the GPU in use after 2,000 shapes", late)
    assert late <= 1.1 * early


def test_an_oversize_run_gives_its_memory_back_and_harms_no_other(
    gpu: Engine, report: Report
) -> None:
    small = noise(gpu, 64, 64)
    before = gpu.run([small])
    usual, oversize = kept_mb(gpu, usual=1400, large=1600)  # 2.0 and 2.6 of 2.1 megapixels
    report.note("MB of the GPU kept of a run of 2.0 megapixels", usual)
    report.note("MB of the GPU kept of a run of 2.6 megapixels", oversize)
    assert usual > 0  # or what is measured tells nothing
    assert oversize < usual / 2
    assert apart(gpu.run([small]), before) <= gpu.card.mixed.tolerances[gpu.provider]


def test_the_first_run_is_the_slow_one(folder: Path, report: Report) -> None:
    loading, first, again = first_request(folder, "cuda", (213, 320))
    report.note("ms to load the sessions", loading)
    report.note("ms of the first run, without warming up", first)
    report.note("ms of the next run of that shape", again)
    assert first > again  # it plans and takes memory: why engines are warmed up


def test_report_of_throughput_by_canvas_table(folder: Path, gpu: Engine, report: Report) -> None:
    sizes = [*usual_sizes(gpu.card), (48, 64), (64, 64), (96, 72), (160, 120)]
    tables = [(), *(table(sizes, n, 2_100_000) for n in (1, 2, 4))]
    for shapes, speed in throughput(folder, "cuda", sizes, tables, seconds=3, rounds=3).items():
        told = ", ".join("×".join(map(str, shape)) for shape in shapes) or "native shapes"
        report.note(f"images/s, {told}", speed)
        assert speed > 0
