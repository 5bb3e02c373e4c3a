"""Step 5: put an artifact where the service looks, in one step."""

import re
from pathlib import Path

from export.errors import ExportError


def next_version(root: Path, name: str) -> int:
    """One more than the newest version of `name` under `root`; 1 when there is none."""
    folder = root / name
    versions = [int(p.name) for p in folder.iterdir() if _is_version(p)] if folder.is_dir() else []
    return max(versions, default=0) + 1


def publish(draft: Path, root: Path, name: str, version: int) -> Path:
    """Rename the finished folder `draft` to root/name/version; raises ExportError if that exists.

    `draft` must lie on the same file system: a rename is what makes it appear whole or not at all.
    """
    target = root / name / str(version)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        raise ExportError(f"{target} exists already; choose another --version")
    draft.rename(target)
    return target


def _is_version(path: Path) -> bool:
    return path.is_dir() and re.fullmatch(r"[1-9]\d*", path.name) is not None
