"""What an artifact is checked on: every device that will serve it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from service.engine import Engine
from service.golden import check
from service.scores import Scores
from service.sessions import CPU


class TwoGpus(Engine):
    """Believes to have two, of which one gives other numbers; all runs are on the CPU.

    broken: "run" or "run_canvas" on the second
    """

    broken = ""

    def run(
        self,
        pictures: Any,
        stop: Any = None,
        canvas: Any = None,
        classes: Any = (),
        device: str | None = None,
    ) -> Scores:
        scores = super().run(pictures, stop, canvas, classes, CPU)
        return self._answer(scores, "run", device)

    def run_canvas(
        self, pixels: Any, sizes: Any, classes: Any = (), device: str | None = None
    ) -> Scores:
        scores = super().run_canvas(pixels, sizes, classes, CPU)
        return self._answer(scores, "run_canvas", device)

    def _answer(self, scores: Scores, how: str, device: str | None) -> Scores:
        if (how, device) == (self.broken, "cuda:1"):
            return replace(scores, logits=scores.logits * 1.01)
        return scores


@pytest.fixture(scope="module")
def folder(store: Path) -> Path:
    return store / "seed_cnn" / "1"


@pytest.fixture
def gpus(folder: Path) -> TwoGpus:
    engine = TwoGpus(folder, "cpu", batching="mixed")
    engine.devices = ("cuda:0", "cuda:1")
    return engine


def test_every_device_is_checked_alike(folder: Path, gpus: TwoGpus) -> None:
    one = [case.size for case in check(Engine(folder, "cpu", batching="mixed"), folder)]
    cases = list(check(gpus, folder))
    assert [case.size for case in cases] == [f"{s}, cuda:{n}" for n in (0, 1) for s in one]
    assert {case.kind for case in cases} == {"size", "company", "mixed"}
    assert [case for case in cases if case.problem is not None] == []


@pytest.mark.parametrize(("broken", "kind"), [("run", "size"), ("run_canvas", "mixed")])
def test_a_second_gpu_that_answers_otherwise_is_found(
    broken: str, kind: str, folder: Path, gpus: TwoGpus
) -> None:
    gpus.broken = broken
    wrong = [case for case in check(gpus, folder) if case.problem is not None]
    assert all(case.size.endswith(", cuda:1") for case in wrong)
    assert kind in {case.kind for case in wrong}
