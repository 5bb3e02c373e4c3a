"""What we ship is what we test: the wheel holds everything, and works from anywhere."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = out.glob("*.whl")
    return built


def test_the_wheel_holds_our_three_packages_and_their_data(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("service", "models", "export"):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert str(path.relative_to(ROOT)) in names
    assert not any(name.startswith("tests/") for name in names)
    assert any(name.endswith("LICENSE") for name in names)


def test_the_wheel_works_beside_folders_of_the_same_names(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    here = tmp_path / "project"
    for folder in ("models", "service", "export"):
        (here / folder).mkdir(parents=True)
        (here / folder / "__init__.py").write_text("raise RuntimeError('the wrong package')")
    script = (
        f"import sys; sys.path.insert(0, {str(site)!r}); "
        "import service.cli; assert service.__file__.startswith(sys.path[0]); "
        "raise SystemExit(service.cli.main(['--help']))"
    )
    command = [sys.executable, "-P", "-c", script]
    done = subprocess.run(command, cwd=here, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "classify images over HTTP" in done.stdout


@pytest.mark.parametrize(
    ("command", "lacking", "said"),
    [("export", "torch", "'anypool[export]'"), ("verify", "onnxruntime", "'anypool[cpu]', or gpu")],
)
def test_a_missing_extra_is_named(command: str, lacking: str, said: str) -> None:
    script = (
        f"import sys; sys.modules[{lacking!r}] = None; "
        f"from service.cli import main; main([{command!r}, 'x'])"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert f"pip install {said}" in done.stderr


def test_traces_without_their_extra_name_it() -> None:
    script = (
        "import sys; sys.modules['opentelemetry'] = None; "
        "from service.cli import main; "
        "sys.exit(main(['serve', '--otel-endpoint', 'http://collector:4318/v1/traces']))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "pip install 'anypool[otel]'" in done.stderr
