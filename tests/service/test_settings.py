"""Settings: one list, three ways to see it."""

from pathlib import Path

import pytest
from pydantic import ValidationError

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


@pytest.mark.parametrize(
    ("given", "origins"),
    [
        (None, []),
        ("*", ["*"]),
        ("https://a.example", ["https://a.example"]),
        (
            "https://a.example, http://127.0.0.1:3000",
            ["https://a.example", "http://127.0.0.1:3000"],
        ),
    ],
)
def test_origins_are_separated_by_commas(given: str | None, origins: list[str]) -> None:
    assert Settings(cors_origins=given).origins == origins


@pytest.mark.parametrize("wrong", ["a.example", "https://a.example/", "https://a.example,", ""])
def test_what_is_no_origin_is_refused(wrong: str) -> None:
    with pytest.raises(ValidationError, match="no origin such as"):
        Settings(cors_origins=wrong)


@pytest.mark.parametrize("name", ["metrics_access", "control_access"])
def test_nothing_is_kept_for_keys_that_are_not_there(name: str) -> None:
    with pytest.raises(ValidationError, match="needs api_keys_file"):
        Settings.model_validate({name: "key"})
    Settings.model_validate({name: "key", "api_keys_file": "keys.json"})


@pytest.mark.parametrize(
    ("given", "megabytes"),
    [
        ({"memory_mb": 16_000}, 1_600),
        ({"memory_mb": 512}, 128),
        ({"memory_mb": 512, "bodies_mb": 300}, 300),
        ({"memory_mb": 512, "max_body_mb": 200}, 400),
    ],
)
def test_bodies_take_a_tenth_of_the_memory_and_two_largest_ones_fit(
    given: dict[str, float], megabytes: int
) -> None:
    assert Settings.model_validate(given).bodies_bytes == megabytes * 1_000_000


def test_gpus_are_named_by_number_each_once() -> None:
    assert Settings().numbers_of_devices is None
    assert Settings(devices="2,0").numbers_of_devices == (2, 0)
    for wrong in ("0,0", "a", "0,", "-1"):
        with pytest.raises(ValidationError):
            Settings(devices=wrong)


def test_tf32_is_too_coarse_for_verification() -> None:
    assert Settings(tf32=True).tf32
    with pytest.raises(ValidationError, match="tf32 is too coarse"):
        Settings(tf32=True, verify=True)
