"""Step 5: put an artifact where the service looks, in one step."""

import re
from pathlib import Path

from export.errors import VersionExistsError


def next_version(root: Path, name: str) -> int:
    """One more than the newest version of `name` under `root`; 1 when there is none."""
    folder = root / name
    versions = [int(p.name) for p in folder.iterdir() if _is_version(p)] if folder.is_dir() else []
    return max(versions, default=0) + 1


def free_version(root: Path, name: str, wanted: int | None) -> int:
    """`wanted`, or else the next version; raises VersionExistsError when `wanted` is taken."""
    if wanted is None:
        return next_version(root, name)
    _refuse_existing(root / name / str(wanted))
    return wanted


def publish(draft: Path, root: Path, name: str, version: int) -> Path:
    """Rename the finished folder `draft` to root/name/version; raises VersionExistsError.

    `draft` must lie on the same file system: a rename is what makes it appear whole or not at all.
    """
    target = root / name / str(version)
    target.parent.mkdir(parents=True, exist_ok=True)
    _refuse_existing(target)
    draft.rename(target)
    return target


def _refuse_existing(target: Path) -> None:
    if target.exists():
        raise VersionExistsError(f"{target} exists already; choose another --version")


def _is_version(path: Path) -> bool:
    return path.is_dir() and re.fullmatch(r"[1-9]\d*", path.name) is not None
