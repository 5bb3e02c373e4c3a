"""From a trained network to an artifact, by the command that people use."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from safetensors.torch import save_file
from torch import nn

from tests.digits.cnn import name_of

_ROOT = Path(__file__).parents[2]


def export(network: nn.Module, pool: str, out: Path) -> Path:
    """Write the weights into `out`, run `anypool export` on them, return the store it wrote to.

    An artifact of that name in the store is replaced. Raises RuntimeError with what the command
    said when it refuses.
    """
    name, store = name_of(pool), out / "artifacts"
    weights = out / f"{name}.safetensors"
    out.mkdir(parents=True, exist_ok=True)
    save_file(network.state_dict(), weights)
    shutil.rmtree(store / name, ignore_errors=True)
    command = [sys.executable, "-P", "-m", "service.cli", "export", name]
    command += ["--import", "tests.digits.networks", "--weights", str(weights), "--out", str(store)]
    found = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        command,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(found)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"anypool export {name} ended with {done.returncode}:\n{done.stderr}")
    return store
