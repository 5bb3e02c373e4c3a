"""Settings: one list, three ways to see it."""

from pathlib import Path

import pytest

from service.settings import Settings, granted_cores, granted_memory_mb


def test_a_setting_comes_from_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYPOOL_MAX_IMAGES", "7")
    assert Settings().max_images == 7


def test_what_the_worker_reads_is_what_the_parent_had(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(
        port=1234, artifacts=Path("elsewhere"), max_body_mb=2.5, model="m", verify=True
    )
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    assert Settings() == settings


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("max 100000", None), ("150000 100000", 1), ("50000 100000", 1), ("100000 100000", 1)],
)
def test_cores_are_those_the_cgroup_grants(tmp_path: Path, quota: str, cores: int | None) -> None:
    file = tmp_path / "cpu.max"
    file.write_text(quota)
    everything = granted_cores(tmp_path / "missing")
    assert everything >= 1
    assert granted_cores(file) == (everything if cores is None else cores)


@pytest.mark.parametrize(
    ("limit", "megabytes"),
    [
        ("256000000\n", 256),
        ("1999999", 1),
        ("max\n", None),
        ("", None),
        ("9223372036854771712\n", None),  # how old kernels say that there is no limit
    ],
)
def test_memory_is_what_the_cgroup_grants(
    tmp_path: Path, limit: str, megabytes: int | None
) -> None:
    file = tmp_path / "memory.max"
    file.write_text(limit)
    everything = granted_memory_mb(tmp_path / "missing")
    assert everything > 256
    assert granted_memory_mb(file) == (everything if megabytes is None else megabytes)


def test_runs_take_at_most_six_tenths_of_the_memory_at_190_bytes_a_pixel() -> None:
    assert Settings(memory_mb=1900).running_pixels == pytest.approx(6_000_000)
    assert Settings(memory_mb=3800).running_pixels == pytest.approx(12_000_000)
