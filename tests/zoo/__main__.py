"""Export every convolutional classifier of torchvision, and one or more of each family in timm.

Each goes through the real command, `anypool export`, which compares it with torch over a grid of
sizes and, in mixed batches, with each image alone. What became of it is kept as a file, so that a
run can be stopped (it finishes the networks it is at) and goes on where it was. Needs torchvision
and timm. Takes hours.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path

from models.card import Card
from tests.zoo import networks, results, trained
from tests.zoo.results import Result

NETWORKS = Path(__file__).with_name("networks.py")
_HIDES = 1e-3  # logits of two images that differ by less hide errors
_NOT_WRITTEN = "not written: "


def main() -> int:
    options = _options()
    chosen = [name for name in networks.names() if _matches(name, options.only)]
    if options.self_check:
        for name in chosen:
            print(_described(name), flush=True)
        return 0
    if not options.table:
        artifacts = options.out / "artifacts"
        run_all(
            chosen,
            options.out / "results",
            lambda name: export(name, artifacts, options.limit),
            again=options.again,
            jobs=options.jobs,
        )
    found = results.load(options.out / "results", chosen)
    text = results.markdown(found)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "table.md").write_text(text, encoding="utf-8")
    print(f"\n{text}", end="")
    return 0


def run_all(
    names: Sequence[str],
    folder: Path,
    run_one: Callable[[str], Result],
    *,
    again: bool = False,
    jobs: int = 1,
) -> None:
    """Run each network that has no result in `folder` yet, or with `again` all; keep results."""
    missing = [name for name in names if again or not results.path_of(folder, name).exists()]

    def run(name: str) -> None:
        result = run_one(name)
        result.save(folder)
        print(f"{name}: {_outcome(result)} ({result.seconds:.0f} s)", flush=True)

    with ThreadPoolExecutor(jobs) as pool:
        for _ in pool.map(run, missing):
            pass


def export(name: str, artifacts: Path, limit_s: float) -> Result:
    """Export one network by the command, in a process of its own; the artifact is not kept."""
    folder = artifacts / name
    shutil.rmtree(folder, ignore_errors=True)
    start = time.monotonic()
    code, stderr = _run(command(name, artifacts), limit_s)
    seconds = time.monotonic() - start
    try:
        if code is None:
            return Result(name, seconds, reason=f"not done after {limit_s:.0f} s")
        if code != 0:
            return Result(name, seconds, reason=reason(stderr) or f"exit code {code}")
        return Result.of(name, seconds, Card.load(folder / "1" / "card.json"))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def command(name: str, artifacts: Path) -> list[str]:
    """The call of `anypool export` for a network."""
    origin = f"{NETWORKS}:{name}"
    called = [sys.executable, "-P", "-m", "service.cli", "export", origin, "--name", name]
    return [*called, "--out", str(artifacts), "--resize", "native", "--activation", "softmax"]


def reason(stderr: str) -> str:
    """Why nothing was written, from what the command said: the last of it."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    starts = [number for number, line in enumerate(lines) if line.startswith(_NOT_WRITTEN)]
    if starts:
        return "\n".join(lines[starts[-1] :]).removeprefix(_NOT_WRITTEN)
    return lines[-1] if lines else ""


def _run(arguments: Sequence[str], limit_s: float) -> tuple[int | None, str]:
    """Exit code, or None where the time was up, and standard error."""
    with subprocess.Popen(
        arguments,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # the command starts others, which must end with it
    ) as process:
        try:
            _, stderr = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return None, ""
        return process.returncode, stderr


def _outcome(result: Result) -> str:
    if not result.plain:
        return f"no artifact: {(result.reason or '')[:200]}"
    return f"exported; mixed batches: {result.mixed_reason or 'yes'}"


def _described(name: str) -> str:
    """Whether a network's logits depend on the image enough to show errors."""
    start = time.monotonic()
    try:
        differ, largest = trained.spread(networks.build(name))
    except Exception as exc:  # their code may raise what it likes
        return f"{name}: cannot be built: {exc}"
    sane = differ >= _HIDES and largest < 1e4
    return (
        f"{name}: logits up to {largest:.2g}, of two images {differ:.1%} apart"
        f"{'' if sane else ', HIDING'} ({time.monotonic() - start:.0f} s)"
    )


def _matches(name: str, patterns: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns.split(","))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.zoo", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--only", default="*", metavar="PATTERN,…",
                        help="such as 'tv_*' or 'tv_resnet*,timm_dla34'")  # fmt: skip
    parser.add_argument("--jobs", type=int, default=1, metavar="N",
                        help="networks at a time (default: %(default)s)")  # fmt: skip
    parser.add_argument("--limit", type=float, default=1200, metavar="SECONDS",
                        help="time for one network (default: %(default)s)")  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("build/zoo"), metavar="DIR",
                        help="results and table.md (default: %(default)s)")  # fmt: skip
    parser.add_argument("--again", action="store_true", help="also what has a result already")
    parser.add_argument("--table", action="store_true", help="only print the table of the results")
    parser.add_argument("--self-check", action="store_true",
                        help="only build networks and see that nothing hides in them")  # fmt: skip
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
