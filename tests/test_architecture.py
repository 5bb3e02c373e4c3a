"""Who may import whom, and what the server must never load."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.cli import COMMANDS

ROOT = Path(__file__).parent.parent
OURS = ("service", "models", "export")


def modules(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""


@pytest.mark.parametrize("path", modules("service"), ids=str)
def test_the_service_shares_only_the_card(path: Path) -> None:
    for name in imports(path):
        top = name.split(".")[0]
        assert top not in ("torch", "onnx", "export", "tests"), f"{path} imports {name}"
        assert top != "models" or name == "models.card", f"{path} imports {name}"


@pytest.mark.parametrize("path", modules("models"), ids=str)
def test_models_know_nothing_of_export_and_service(path: Path) -> None:
    assert not {"export", "service", "onnx", "onnxruntime"} & {
        n.split(".")[0] for n in imports(path)
    }


@pytest.mark.parametrize("path", modules("export"), ids=str)
def test_export_does_not_import_the_service(path: Path) -> None:
    assert "service" not in {name.split(".")[0] for name in imports(path)}


def test_capture_runs_with_torch_alone() -> None:
    names = {name.split(".")[0] for name in imports(ROOT / "export" / "capture.py")}
    assert not {"onnx", "onnxruntime", "onnxscript", "onnx_ir"} & names


def test_the_card_needs_no_torch() -> None:
    assert not any(name.startswith("torch") for name in imports(ROOT / "models" / "card.py"))


@pytest.mark.parametrize("path", modules("service"), ids=str)
def test_routes_and_cores_keep_apart(path: Path) -> None:
    inside_api = "api" in path.relative_to(ROOT).parts
    web = {"fastapi", "starlette"} & {name.split(".")[0] for name in imports(path)}
    assert inside_api or not web or path.name == "app.py", f"{path} imports {web}"


@pytest.mark.parametrize("path", modules("service"), ids=str)
def test_the_service_fetches_nothing(path: Path) -> None:
    clients = {"socket", "ssl", "http.client", "urllib.request", "ftplib", "httpx", "requests",
               "aiohttp"}  # fmt: skip
    if path.name not in ("supervisor.py", "health.py"):  # which listens; the command
        assert not clients & set(imports(path))


@pytest.mark.parametrize(
    ("code", "forbidden"),
    [
        ("import service.app", ("torch", "onnx", "export")),
        ("from service.app import create_app; create_app()", ("opentelemetry.sdk",)),
        ("import service.supervisor", ("onnxruntime", "PIL", "numpy", "torch", "onnx")),
        ("import service.commands.serve", ("onnxruntime", "torch", "onnx")),
    ],
)
def test_what_a_process_loads(code: str, forbidden: tuple[str, ...]) -> None:
    check = f"{code}; import sys; print([m for m in {forbidden} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-P", "-c", check], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_nothing_but_commands_prints() -> None:
    commands = {"service.cli", *(module for _, module in COMMANDS.values())}
    for folder in OURS:
        for path in modules(folder):
            if ".".join(path.relative_to(ROOT).with_suffix("").parts) in commands:
                continue
            calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
            names = [n.func.id for n in calls if isinstance(n.func, ast.Name)]
            assert "print" not in names, path
