"""The image that IMAGE names, run by a Docker engine: `make docker-test` builds it first."""

import shutil
import threading
from pathlib import Path

import httpx
import pytest

from tests.conftest import all_photos, photo
from tests.docker.container import IMAGE, Container, docker, image, inside, once, readable
from tests.versions import change_card

pytestmark = pytest.mark.docker

ROOT = Path(__file__).parent.parent.parent
GPU = IMAGE.endswith(":gpu")
MEGABYTES = 1_000_000


def test_it_serves_as_nobody_on_a_read_only_file_system_and_stops_with_zero() -> None:
    with Container() as container:
        answer = httpx.post(f"{container.url}/v1/classify", content=photo("panda").data, timeout=60)
        assert answer.json()["results"][0]["predictions"][0]["label"] == "giant panda"
        assert container.execute("id", "-u").stdout.strip() == "10001"
        for place in ("/artifacts", "/tmp", "/"):
            assert container.execute("touch", f"{place}/x").returncode != 0
        assert container.execute("/entrypoint.sh", "health").returncode == 0
        assert container.stop() == 0
        assert "draining" in container.log


def test_what_was_accepted_is_answered_before_it_ends() -> None:
    files = [("files", (p.path.name, p.data)) for p in all_photos()]
    answers: list[httpx.Response] = []
    with Container() as container:
        client = threading.Thread(
            target=lambda: answers.append(
                httpx.post(f"{container.url}/v1/classify", files=files, timeout=60)
            )
        )
        client.start()
        while not answers and not admitted(container):
            pass
        assert not answers, "answered before it could be stopped: send more"
        assert container.stop() == 0
        client.join(60)
    assert answers[0].status_code == 200
    assert all("predictions" in result for result in answers[0].json()["results"])


def test_a_volume_over_artifacts_is_served_instead(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "artifacts" / "efficientnet_lite0" / "1", tmp_path / "mine" / "7")
    change_card(tmp_path / "mine" / "7", name="mine", version=7)
    with Container("--volume", f"{readable(tmp_path)}:/artifacts:ro") as container:
        (model,) = httpx.get(f"{container.url}/readyz").json()["models"]
        assert (model["name"], model["version"]) == ("mine", "7")


def test_settings_are_given_as_variables_or_options() -> None:
    with Container(
        "--env", "ANYPOOL_MAX_IMAGES=1", arguments=("serve", "--log-format", "json")
    ) as container:
        files = [("files", (p.path.name, p.data)) for p in all_photos()[:2]]
        assert httpx.post(f"{container.url}/v1/classify", files=files).status_code == 413
        assert '"message"' in container.log


def test_a_gpu_that_is_not_there_ends_it_with_one_clear_line() -> None:
    done = once("serve", "--provider", "cuda")
    (line,) = done.stderr.strip().splitlines()
    assert done.returncode == 1
    assert ("libcuda.so.1 is missing" if GPU else "extra gpu") in line


def test_there_is_no_torch_no_onnx_and_no_pip_in_the_environment() -> None:
    names = ("torch", "onnx", "onnxscript", "pip", "service", "onnxruntime")
    done = inside(
        "import importlib.util as u, sys; sys.path = [p for p in sys.path if '/opt/venv' in p];"
        f"print([n for n in {names} if u.find_spec(n)])"
    )
    assert done.stdout.strip() == "['service', 'onnxruntime']", done.stderr


def test_licence_and_notice_of_the_weights_are_inside() -> None:
    done = inside(
        "from pathlib import Path\n"
        "for name in ('LICENSE', 'NOTICE'):\n"
        "    print(Path('/usr/share/doc/anypool', name).read_text())"
    )
    assert (ROOT / "LICENSE").read_text() in done.stdout
    assert "efficientnet_lite0: Apache-2.0. Weights of EfficientNet-Lite0" in done.stdout


def test_nothing_secret_is_in_a_layer() -> None:
    done = inside(
        "from pathlib import Path\n"
        "print([p for p in ('/etc/pip.conf', '/run/secrets', '/src') if Path(p).exists()])"
    )
    assert done.stdout.strip() == "[]", done.stderr
    history = docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", IMAGE).stdout
    assert "pip.conf" not in history


def test_it_says_what_it_is() -> None:
    config = image()["Config"]
    labels = {k.rpartition(".")[2]: v for k, v in config["Labels"].items() if "opencontainers" in k}
    assert labels["title"] == "anypool"
    assert labels["licenses"] == "Apache-2.0"
    assert labels["version"][0].isdigit()
    assert len(labels["revision"]) == 40
    assert config["User"] == "10001:10001"
    assert config["Healthcheck"]["Test"] == ["CMD", "/entrypoint.sh", "health"]
    variables = dict(pair.split("=", 1) for pair in config["Env"])
    assert variables["PYTHONSAFEPATH"] == variables["ORT_DISABLE_TELEMETRY"] == "1"
    assert variables.get("NVIDIA_DRIVER_CAPABILITIES") == ("compute,utility" if GPU else None)


def test_it_is_not_larger_than_need_be() -> None:
    if GPU:
        assert image()["Size"] <= 2_600 * MEGABYTES
    else:
        assert over_base() <= 450 * MEGABYTES


def admitted(container: Container) -> bool:
    """Whether images are waiting for their answer."""
    return "\nanypool_admitted_pixels 0.0" not in httpx.get(f"{container.url}/metrics").text


def over_base() -> int:
    """Bytes of the layers that are ours: those above the one that says what the image is."""
    lines = docker("history", "--no-trunc", "--human=false", "--format", "{{.Size}} {{.CreatedBy}}",
                   IMAGE).stdout.splitlines()  # fmt: skip
    first = next(i for i, line in enumerate(lines) if "org.opencontainers.image.title" in line)
    return sum(int(line.split()[0]) for line in lines[:first])
