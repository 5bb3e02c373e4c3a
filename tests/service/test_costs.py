"""Lines fitted to timed runs, and the pace of the machine."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.costs import FREE, Canvas, Line, Pace, fit


def test_a_line_is_a_fixed_part_and_a_part_for_each_pixel() -> None:
    assert Line(base=2.0, pixel=0.5).seconds(10) == 7.0
    assert FREE.seconds(1_000_000) == 0.0


# Fit


def test_a_line_through_two_points_goes_through_them() -> None:
    line = fit([(100, 3.0), (300, 5.0)])
    assert line.base == pytest.approx(2.0)
    assert line.pixel == pytest.approx(0.01)


def test_the_relative_error_counts_not_the_absolute_one() -> None:
    # (0, 1), (1, 2), (2, 12). Least squares of a/1 - 1, (a + b)/2 - 1 and (a + 2b)/12 - 1 give
    # 181a + 38b = 228 and 38a + 40b = 96, so 5796a = 5472. Of absolute errors a would be -0.5.
    line = fit([(0, 1.0), (1, 2.0), (2, 12.0)])
    assert line.base == pytest.approx(5472 / 5796)
    assert line.pixel == pytest.approx((96 - 38 * 5472 / 5796) / 40)


def test_a_photo_s_hiccup_does_not_spoil_what_is_predicted_for_thumbnails() -> None:
    thumbnails = [(1_000 * n, 1e-3 + 1e-7 * 1_000 * n) for n in range(1, 11)]
    line = fit([*thumbnails, (4_000_000, 0.8)])  # 0.401 on the line
    # 0.96 ms; of absolute errors 0.65 ms.
    assert line.seconds(1_000) == pytest.approx(1.1e-3, rel=0.2)


def test_no_call_is_predicted_to_cost_less_than_nothing() -> None:
    assert fit([(100, 0.5), (200, 2.0), (300, 6.0)]) == Line(0.0, 0.01)  # median of the rates


def test_no_pixel_is_predicted_to_save_time() -> None:
    assert fit([(100, 3.0), (200, 2.0), (300, 1.0)]) == Line(2.0, 0.0)


pixels = st.integers(1, 4_000_000)


@given(
    st.floats(1e-5, 0.1),
    st.floats(1e-9, 1e-5),
    st.lists(st.integers(1, 4000), min_size=2, max_size=20, unique=True),
)
def test_what_lies_on_a_line_is_predicted_as_it_was_measured(
    base: float, pixel: float, thousands: list[int]
) -> None:
    true = Line(base, pixel)
    measured = [(1000 * n, true.seconds(1000 * n)) for n in thousands]
    line = fit(measured)
    for count, seconds in measured:
        assert line.seconds(count) == pytest.approx(seconds, rel=1e-6)


@given(st.lists(st.tuples(pixels, st.floats(1e-6, 100.0)), min_size=1, max_size=20))
def test_neither_number_is_negative_whatever_was_measured(
    measured: list[tuple[int, float]],
) -> None:
    line = fit(measured)
    assert line.base >= 0
    assert line.pixel >= 0
    assert math.isfinite(line.seconds(4_000_000))


# Pace


def test_at_first_a_machine_is_as_fast_as_it_was_when_measured() -> None:
    assert Pace().factor == 1.0


def test_one_run_moves_the_pace_by_a_twentieth_of_the_way() -> None:
    pace = Pace()
    pace.observe(predicted=1.0, measured=2.0)
    assert pace.factor == pytest.approx(2**0.05)


@pytest.mark.parametrize("steady", [0.01, 0.7, 1.0, 3.0, 100.0])
def test_the_pace_moves_to_a_steady_factor(steady: float) -> None:
    pace = Pace()
    for run in range(1, 301):
        pace.observe(predicted=0.001 * run, measured=0.001 * run * steady)
    assert pace.factor == pytest.approx(steady, rel=0.01)


@pytest.mark.parametrize("hiccup", [1e-6, 50.0, 1e6])
def test_one_outlier_hardly_counts(hiccup: float) -> None:
    pace = Pace()
    for _ in range(100):
        pace.observe(predicted=0.01, measured=0.02)
    before = pace.factor
    pace.observe(predicted=0.01, measured=0.02 * hiccup)
    assert pace.factor == pytest.approx(before, rel=0.08)


@pytest.mark.parametrize(("predicted", "measured"), [(0.0, 1.0), (1.0, 0.0), (0.0, 0.0)])
def test_a_run_that_was_free_says_nothing(predicted: float, measured: float) -> None:
    pace = Pace()
    pace.observe(predicted, measured)
    assert pace.factor == 1.0


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=50))
def test_the_pace_stays_between_the_extremes_of_what_was_seen(ratios: list[float]) -> None:
    pace = Pace()
    for ratio in ratios:
        pace.observe(predicted=1.0, measured=ratio)
    assert min(1.0, *ratios) * (1 - 1e-9) <= pace.factor <= max(1.0, *ratios) * (1 + 1e-9)


# Canvas


@pytest.mark.parametrize(
    ("height", "width", "fits"),
    [(10, 20, True), (1, 1, True), (11, 20, False), (10, 21, False), (20, 10, False)],
)
def test_a_canvas_holds_what_is_no_taller_and_no_wider(height: int, width: int, fits: bool) -> None:
    assert Canvas(4, 10, 20).holds(height, width) is fits


def test_all_rows_of_a_canvas_are_computed() -> None:
    assert Canvas(4, 10, 20).pixels == 800
