"""build/gpu-report.md and .json: what the tests on a GPU have measured."""

import json
import platform
from dataclasses import dataclass, field
from pathlib import Path

import onnxruntime as ort

from service import cuda

BUILD = Path(__file__).parents[2] / "build"


@dataclass(slots=True)
class Report:
    """Figures by what they tell, in the order they come."""

    figures: dict[str, str | float] = field(default_factory=dict)

    def note(self, what: str, value: str | float) -> None:
        """Keep a figure."""
        self.figures[what] = value if isinstance(value, str) else float(f"{value:.4g}")

    def write(self, folder: Path = BUILD) -> None:
        """Write both files, if there is anything to tell."""
        if not self.figures:
            return
        folder.mkdir(exist_ok=True)
        gpus, python = ", ".join(cuda.names()) or "none", platform.python_version()
        host = {"gpus": gpus, "onnxruntime": ort.__version__, "python": python}
        told = json.dumps({"host": host, "figures": self.figures}, indent=1, ensure_ascii=False)
        (folder / "gpu-report.json").write_text(told + "\n", encoding="utf-8")
        rows = [f"| {what} | {value} |" for what, value in self.figures.items()]
        about = f"GPUs: {gpus}. ONNX Runtime {ort.__version__}, Python {python}."
        text = "\n".join(["# On a GPU", "", about, "", "| what | measured |", "|---|---|", *rows])
        (folder / "gpu-report.md").write_text(text + "\n", encoding="utf-8")
