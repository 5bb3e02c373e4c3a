"""A container of the image under test, for the length of a test."""

import json
import os
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

IMAGE = os.environ.get("IMAGE", "anypool:cpu")
# As nobody, on a root file system that cannot be written, with no right of any kind.
HARDENED = (
    *("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
    *("--memory", "1g", "--pids-limit", "256"),
)
_DOCKER = os.environ.get("DOCKER", "docker")
_HOST_NETWORK = os.environ.get("DOCKER_NETWORK") == "host"
_STARTUP_S = 90


def docker(
    *arguments: str, check: bool = True, given: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a docker command to its end."""
    command = [_DOCKER, *arguments]
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=200)
    assert not check or done.returncode == 0, f"{command}: {done.stderr}"
    return done


def once(*arguments: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """What an `anypool` command says in a container of its own."""
    return docker("run", "--rm", "--network", "none", *HARDENED, *options, IMAGE, *arguments,
                  check=False)  # fmt: skip


def inside(code: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run Python code in a container of its own."""
    return docker("run", "--rm", "--interactive", "--network", "none", "--entrypoint", "python",
                  *HARDENED, *options, IMAGE, "-", check=False, given=code)  # fmt: skip


def image() -> Any:
    """What the engine knows of the image."""
    return json.loads(docker("image", "inspect", IMAGE).stdout)[0]


class Container:
    """Start with `with Container() as container:`; it is healthy then, and `url` is its own."""

    def __init__(self, *options: str, arguments: tuple[str, ...] = ()) -> None:
        self._options = options
        self._arguments = arguments

    def __enter__(self) -> Self:
        network: tuple[str, ...] = ("--publish", "127.0.0.1::8000")
        if _HOST_NETWORK:
            port = _free_port()
            network = ("--network", "host", "--env", "HOST=127.0.0.1", "--env", f"PORT={port}")
        run = docker("run", "--detach", *network, *HARDENED, *self._options, IMAGE,
                     *self._arguments)  # fmt: skip
        self.id = run.stdout.strip()
        try:
            if not _HOST_NETWORK:
                port = int(docker("port", self.id, "8000/tcp").stdout.rpartition(":")[2])
            self.url = f"http://127.0.0.1:{port}"
            self._wait_until_healthy()
        except BaseException:
            docker("rm", "--force", self.id)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        docker("rm", "--force", self.id)

    @property
    def log(self) -> str:
        """What the service has written to standard error."""
        return docker("logs", self.id).stderr

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the container, beside the service."""
        return docker("exec", self.id, *command, check=False)

    def stop(self) -> int:
        """Stop the container as `docker stop` does, with time to drain; its exit code."""
        docker("stop", "--time", "40", self.id)
        return int(self._state()["ExitCode"])

    def _state(self) -> Any:
        return json.loads(docker("inspect", self.id).stdout)[0]["State"]

    def _wait_until_healthy(self) -> None:
        give_up = time.monotonic() + _STARTUP_S
        while (state := self._state())["Health"]["Status"] != "healthy":
            assert state["Running"], f"the container ended:\n{self.log}"
            assert time.monotonic() < give_up, f"not healthy: {state['Health']}\n{self.log}"
            time.sleep(0.1)


def readable(folder: Path) -> Path:
    """The folder, which any user may enter and read now."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port
