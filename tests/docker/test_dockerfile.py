"""What can be said of the Dockerfile without building it."""

import re

from tests.docker.files import DOCKER, DOCKERFILE, targets

ROOT = DOCKER.parent
NVIDIA = (DOCKER / "nvidia.txt").read_text(encoding="utf-8")


def test_there_are_both_targets_and_the_cpu_is_the_default_one() -> None:
    assert targets() >= {"cpu", "gpu"}
    assert re.findall(r"^FROM .* AS (\S+)$", DOCKERFILE, re.MULTILINE)[-1] == "cpu"


def test_neither_torch_nor_onnx_is_installed() -> None:
    installed = re.findall(r'"\.\[(.+)\]"', DOCKERFILE)
    assert installed == ["cpu${EXTRAS:+,$EXTRAS}", "gpu${EXTRAS:+,$EXTRAS}"]


def test_what_is_copied_reaches_the_builder() -> None:
    allowed = (DOCKER / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert allowed[0] == "*"
    for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE):
        for path in line.split()[:-1]:
            assert f"!{path.removesuffix('/${MODEL}')}" in allowed


def test_older_engines_can_build_it() -> None:
    assert "# syntax=" not in DOCKERFILE
    assert "<<" not in DOCKERFILE
    assert "--link" not in DOCKERFILE


def test_nvidias_libraries_are_those_of_the_onnx_runtime_that_is_installed() -> None:
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    version = re.findall(r"^onnxruntime-gpu==(.+)$", constraints, re.MULTILINE)[0]
    assert f"as ONNX Runtime {version} is built" in NVIDIA
    pins = [line for line in NVIDIA.splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"nvidia-[\w-]+==[\d.]+", pin) for pin in pins)
    assert not {"nvidia-cufft", "nvidia-nvjitlink"} & {pin.partition("==")[0] for pin in pins}
