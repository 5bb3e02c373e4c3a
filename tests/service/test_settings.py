"""Settings: one list, three ways to see it."""

from pathlib import Path

import pytest

from service.settings import Settings, granted_cores


def test_a_setting_comes_from_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYPOOL_MAX_IMAGES", "7")
    assert Settings().max_images == 7


def test_what_the_worker_reads_is_what_the_parent_had(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(port=1234, artifacts=Path("elsewhere"), max_body_mb=2.5, model="m")
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
