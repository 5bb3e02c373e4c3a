"""Networks from their authors' files and from saved programs."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from export.capture import FOUND, capture
from export.errors import CaptureError
from export.origin import load
from export.recipe import Found, Recipe
from models.card import Preprocessing
from models.weights import WeightsError
from tests.export.lowering import relative_error, run, session, to_graph

COLOUR = Preprocessing(channels=3, mean=(100,) * 3, std=(50,) * 3, policy="native")
NET = """
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, 2, 1)
            self.head = nn.Linear(4, 5)

        def forward(self, x):
            return self.head(self.conv(x).mean((2, 3)))

    def build():
        torch.manual_seed(3)
        return Net()

    made = build()

    class Factory:
        net = Net()

        @staticmethod
        def make():
            return build()

    def raises():
        names = []
        return names[4]

    def returns_a_list():
        return [made]

    def needs_an_argument(classes):
        return made

    number = 7
    _hidden = build
"""


def write(path: Path, text: str = NET) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dedent(text), encoding="utf-8")
    return path


def recipe(origin: str, **more: object) -> Recipe:
    return Recipe.model_validate(
        {"origin": origin, "preprocessing": COLOUR, "activation": "softmax", **more}
    )


@pytest.fixture(autouse=True)
def _imports_as_before(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """To load a file changes what is imported and from where, as is fit for its own process."""
    monkeypatch.setattr(sys, "path", sys.path[:])
    before = sys.modules.copy()
    yield
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]
    sys.modules.update(before)


@pytest.mark.parametrize("name", ["build", "Net", "made", "Factory.make", "Factory.net", "_hidden"])
def test_a_function_a_class_and_a_network_are_all_found(name: str, tmp_path: Path) -> None:
    network = load(recipe(f"{write(tmp_path / 'net.py')}:{name}"))
    assert type(network).__name__ == "Net"
    assert not network.training
    assert network(torch.zeros(1, 3, 20, 30)).shape == (1, 5)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("raises", r"net\.py:raises fails \(net\.py, line \d+\): IndexError: list index out of ra"),
        ("returns_a_list", r"net\.py:returns_a_list gives list, not a torch\.nn\.Module$"),
        ("needs_an_argument", r"net\.py:needs_an_argument fails: TypeError: .* 'classes'$"),
        ("number", r"net\.py:number fails: TypeError: 'int' object is not callable$"),
        ("bild", r"net\.py has no bild; there are: Net, build, made, Factory, raises, returns_a_"),
        ("Factory.mak", r"net\.py has no Factory\.mak; there are: Net, build, "),
        ("torch.nothing", r"net\.py has no torch\.nothing; there are: "),
    ],
)
def test_what_gives_no_network_is_told(name: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match=said) as refused:
        load(recipe(f"{write(tmp_path / 'net.py')}:{name}"))
    assert len(str(refused.value).splitlines()) == 1
    assert "_hidden" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import torch\nimport not_installed\n",
         r"cannot be imported \(net\.py, line 2\): ModuleNotFoundError: No module named 'not_in"),
        ("x = 1\n\nraise RuntimeError('not today')\n",
         r"cannot be imported \(net\.py, line 3\): RuntimeError: not today$"),
        ("def build(:\n", r"net\.py cannot be imported.*: SyntaxError: invalid syntax$"),
    ],
)  # fmt: skip
def test_a_file_that_fails_on_import_is_told_with_its_line(
    text: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(CaptureError, match=said):
        load(recipe(f"{write(tmp_path / 'net.py', text)}:build"))


def test_an_error_in_a_sibling_is_told_with_that_file(tmp_path: Path) -> None:
    write(tmp_path / "their_layers.py", "\n\n1 / 0\n")
    net = write(tmp_path / "net.py", "from their_layers import Net as build\n")
    with pytest.raises(CaptureError, match=r"\(their_layers\.py, line 3\): ZeroDivisionError: div"):
        load(recipe(f"{net}:build"))


def test_siblings_and_packages_that_are_called_as_ours_are_theirs(tmp_path: Path) -> None:
    write(tmp_path / "models" / "__init__.py", "")
    write(tmp_path / "models" / "card.py", NET)
    write(tmp_path / "export.py", "CLASSES = 7\n")
    write(tmp_path / "parts.py", "from models import card\nfrom models.card import Net\n")
    net = write(
        tmp_path / "net.py",
        """
        from torch import nn
        from export import CLASSES
        from parts import Net, card

        def build():
            net = Net()
            net.head = nn.Linear(4, CLASSES)
            return net
        """,
    )
    assert load(recipe(f"{net}:build"))(torch.zeros(1, 3, 9, 9)).shape == (1, 7)


def test_a_file_in_a_package_imports_by_its_folder(tmp_path: Path) -> None:
    write(tmp_path / "zoo" / "__init__.py", "")
    write(tmp_path / "zoo" / "parts.py")
    net = write(tmp_path / "zoo" / "net.py", "from parts import build\n")
    assert load(recipe(f"{net}:build"))(torch.zeros(1, 3, 9, 9)).shape == (1, 5)


def test_capture_works_where_theirs_hides_ours(tmp_path: Path) -> None:
    write(tmp_path / "models" / "__init__.py", NET)
    write(tmp_path / "export" / "__init__.py", "")
    write(tmp_path / "service" / "__init__.py", "raise RuntimeError\n")
    net = write(tmp_path / "net.py", "import export\nfrom models import build\n")
    (tmp_path / "out").mkdir()
    (tmp_path / "recipe.json").write_text(recipe(f"{net}:build").model_dump_json())
    command = [sys.executable, "-P", "-m", "export.capture", "recipe.json", "out"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + (tmp_path / "out" / "refused.txt").read_text()
    assert (tmp_path / "out" / "golden.npz").exists()


# --- weights


def weights(state: object, path: Path) -> Path:
    if path.suffix == ".safetensors":
        assert isinstance(state, dict)
        save_file(state, path)
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize("name", ["w.pt", "w.pth", "w.safetensors"])
@torch.no_grad()
def test_weights_replace_those_that_build_made(name: str, tmp_path: Path) -> None:
    origin = f"{write(tmp_path / 'net.py')}:build"
    state = {k: torch.full_like(v, 0.5) for k, v in load(recipe(origin)).state_dict().items()}
    network = load(recipe(origin, weights=weights(state, tmp_path / name)))
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())


def test_weights_that_do_not_fit_are_told_in_short(tmp_path: Path) -> None:
    origin = f"{write(tmp_path / 'net.py')}:build"
    state = {f"layer.{i}.weight": torch.zeros(1) for i in range(200)}
    with pytest.raises(WeightsError, match=r"w\.pt does not fit .*net\.py:build: .*head\.") as said:
        load(recipe(origin, weights=weights(state, tmp_path / "w.pt")))
    assert len(str(said.value)) < 1000
    assert " …" in str(said.value)


# --- saved programs


class Saved(nn.Module):
    """A network with adaptive poolings of both kinds over several cells."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, 2, 1)
        self.head = nn.Linear(4 * 9 + 4 * 9 + 4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        parts = [F.adaptive_max_pool2d(x, 3), F.adaptive_avg_pool2d(x, (3, 3))]
        parts.append(nn.AdaptiveMaxPool2d(1)(x))
        logits: Tensor = self.head(torch.cat([part.flatten(1) for part in parts], 1))
        return logits


def save(network: nn.Module, path: Path, *, dynamic: bool = True, batch: int = 2) -> Path:
    axes = (dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC),) if dynamic else None
    example = (torch.zeros(batch, 3, 64, 64),) if not dynamic else (torch.zeros(2, 3, 61, 83),)
    program = torch.export.export(network.eval(), example, dynamic_shapes=axes, strict=False)
    torch.export.save(program, path)
    return path


def test_a_saved_program_is_refused_without_trust(tmp_path: Path) -> None:
    (tmp_path / "net.pt2").write_bytes(b"never looked at")
    with pytest.raises(CaptureError, match=r"net\.pt2 is a saved program, .*: say --trust if you"):
        load(recipe(str(tmp_path / "net.pt2")))


def test_what_is_no_program_is_told(tmp_path: Path) -> None:
    (tmp_path / "net.pt2").write_bytes(b"no program")
    with pytest.raises(CaptureError, match=r"net\.pt2 cannot be loaded: ") as said:
        load(recipe(str(tmp_path / "net.pt2"), trust=True))
    assert len(str(said.value)) < 500


@torch.no_grad()
def test_a_saved_program_with_trust_is_captured_again_and_right_at_every_size(
    tmp_path: Path,
) -> None:
    network = Saved()
    file = save(network, tmp_path / "net.pt2")
    capture(recipe(str(file), trust=True), tmp_path)
    found = Found.model_validate_json((tmp_path / FOUND).read_bytes())
    assert found.limits.multiple == 1
    assert max(found.limits.smallest()) <= 8
    assert found.pooling == "adaptive maximum to 1×1"
    program = torch.export.load(tmp_path / "program.pt2")
    runner = session(to_graph(program, ["logits", "probabilities"]))
    for n, h, w in ((1, 8, 8), (3, 37, 53), (1, 224, 225), (2, 9, 100)):
        pixels = torch.randint(0, 256, (n, h, w, 3), dtype=torch.uint8)
        want = network((pixels.permute(0, 3, 1, 2).float() - 100) / 50).numpy()
        assert relative_error(run(runner, pixels.numpy())[0], want) <= 2e-5, (n, h, w)


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        (1, r"takes 64×64 but not 128×128\. .*: Guard failed: .*size\(\)\[2\] == 64"),
        (2, r"fails at every size tried: .*Guard failed: .*size\(\)\[0\] == 2"),
    ],
)
def test_a_saved_program_of_one_size_is_refused_with_the_size(
    batch: int, said: str, tmp_path: Path
) -> None:
    file = save(Saved(), tmp_path / "net.pt2", dynamic=False, batch=batch)
    with pytest.raises(CaptureError, match=said):
        capture(recipe(str(file), trust=True), tmp_path)


def test_a_program_stays_in_evaluation_mode(tmp_path: Path) -> None:
    network = load(recipe(str(save(Saved(), tmp_path / "net.pt2")), trust=True))
    assert not network.train().training


def test_weights_are_not_put_into_a_foreign_program_silently(tmp_path: Path) -> None:
    file = save(Saved(), tmp_path / "net.pt2")
    state = {"conv.weight": torch.zeros(1)}
    with pytest.raises(WeightsError, match=re.escape("w.pt does not fit")):
        load(recipe(str(file), trust=True, weights=weights(state, tmp_path / "w.pt")))
