"""One real export a session, which the tests of pipeline and command share."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from export.pipeline import Progress, export
from export.verify import Case


@dataclass(frozen=True, slots=True)
class Exported:
    """The artifact `folder` of seed_cnn under `root`, and what was told on the way."""

    root: Path
    folder: Path
    steps: list[str]
    cases: list[Case]


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    root, steps, cases = tmp_path_factory.mktemp("exported") / "store", list[str](), list[Case]()
    folder = export("seed_cnn", root, Progress(steps.append, cases.append))
    return Exported(root, folder, steps, cases)
