"""What torch is asked, and what is refused before it becomes a graph."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from export.capture import export_program, references
from export.errors import CaptureError
from export.served import OUTPUTS, Served
from export.sizes import EXAMPLE, content, example_size, find_limits, grid, probe_limits
from models import registry
from models.card import Activation, Preprocessing, SizeLimits
from models.classifier import PoolingClassifier
from models.pool import POOLS
from models.pool.global_avg import GlobalAvgPool
from tests.export.lowering import Calls, Function, Pixels

GREY = Preprocessing(channels=1, mean=(100.0,), std=(50.0,), policy="native")


def served(backbone: nn.Module, features: int = 1) -> Served:
    head = nn.Linear(features, 2)
    return Served(PoolingClassifier(backbone, POOLS["avg"](), head), GREY).eval()


# --- limits: probe_limits, find_limits


@pytest.mark.parametrize(
    ("works", "limits"),
    [
        (lambda h, w: True, (1, 1, 1)),
        (lambda h, w: h >= 7 and w >= 13, (7, 13, 1)),
        (lambda h, w: h >= 33 and w >= 2, (33, 2, 1)),
        (lambda h, w: h + w >= 40, (20, 20, 1)),  # either may be 1, but not both
        (lambda h, w: h % 2 == w % 2 == 0, (2, 2, 2)),
        (lambda h, w: h % 32 == w % 32 == 0 and h >= 64, (64, 32, 32)),
        (lambda h, w: h % 4 == 0 and h >= 8 and w >= 5, (8, 8, 4)),  # one multiple for both sides
        (lambda h, w: h >= 300 and w >= 70, (300, 70, 1)),
        # paths of one network that agree at some sizes only
        (lambda h, w: h % 32 < 2 and w % 32 < 2 and min(h, w) > 31, (32, 32, 32)),
    ],
)
def test_the_smallest_sides_are_found_by_trying(
    works: Callable[[int, int], bool], limits: tuple[int, int, int]
) -> None:
    height, width, multiple = limits
    found = probe_limits(works)
    assert found == SizeLimits(min_height=height, min_width=width, multiple=multiple)
    assert works(*found.smallest())


@settings(max_examples=50, deadline=None)
@given(h=st.integers(1, 500), w=st.integers(1, 500), m=st.sampled_from([1, 2, 4, 8, 16, 32, 64]))
def test_any_smallest_sides_and_multiple_are_found(h: int, w: int, m: int) -> None:
    found = probe_limits(lambda y, x: y >= h and x >= w and y % m == x % m == 0)
    smallest = SizeLimits(min_height=h, min_width=w, multiple=m).smallest()
    assert (found.smallest(), found.multiple) == (smallest, m)


def test_a_network_that_never_works_is_refused() -> None:
    with pytest.raises(CaptureError, match="fails at every size tried"):
        probe_limits(lambda h, w: False)


def test_a_network_for_one_size_only_is_refused() -> None:
    with pytest.raises(CaptureError, match="takes 128×128 but not 256×256"):
        probe_limits(lambda h, w: (h, w) == (128, 128))


def test_limits_of_a_network_are_those_of_its_kernels() -> None:
    limits = find_limits(served(nn.Conv2d(1, 1, (5, 3))), channels=1)
    assert limits == SizeLimits(min_height=5, min_width=3)


def test_an_answer_that_is_not_finite_counts_as_failure() -> None:
    # the mean of an empty map is NaN, and torch raises nothing
    limits = find_limits(served(Calls(lambda x: x[:, :, 2:-2, 3:-3])), channels=1)
    assert limits == SizeLimits(min_height=5, min_width=7)


def test_a_network_that_never_works_says_what_torch_said() -> None:
    with pytest.raises(CaptureError, match=r"at every size tried.* expected .* to have 7 channels"):
        find_limits(served(nn.Conv2d(7, 1, 1)), channels=1)


# --- sizes and contents


LIMITS = [(1, 1, 1), (32, 32, 1), (5, 3, 1), (64, 32, 32), (224, 224, 1)]


@pytest.mark.parametrize(("height", "width", "multiple"), LIMITS)
def test_the_grid_respects_the_limits_and_is_wide(height: int, width: int, multiple: int) -> None:
    limits = SizeLimits(min_height=height, min_width=width, multiple=multiple)
    sizes = grid(limits)
    assert len(sizes) == len(set(sizes)) >= 10
    assert all(h >= height and w >= width for _, h, w in sizes)
    assert all(h % multiple == w % multiple == 0 for _, h, w in sizes)
    _, example_height, example_width = example_size(limits)
    assert {n for n, _, _ in sizes} == {1, 2, 3}
    assert limits.smallest() in {(h, w) for _, h, w in sizes}
    assert any(h == w for _, h, w in sizes)
    assert any(h > w for _, h, w in sizes)
    assert any(h < w for _, h, w in sizes)
    assert any(h < example_height and w < example_width for _, h, w in sizes)
    assert any(h > example_height and w > example_width for _, h, w in sizes)
    assert any(h > 1024 for _, h, _ in sizes)
    assert any(w > 1024 for _, _, w in sizes)
    assert any(w * height >= 16 * h * width for _, h, w in sizes)
    assert any(h * width >= 16 * w * height for _, h, w in sizes)


def test_the_grid_has_odd_prime_and_extreme_sizes() -> None:
    sizes = grid(SizeLimits(min_height=1, min_width=1))
    assert any(h % 2 and w % 2 for _, h, w in sizes)
    assert {(37, 53), (1, 16), (16, 1), (1, 1)} <= {(h, w) for _, h, w in sizes}
    assert 1031 in {h for _, h, _ in sizes} & {w for _, _, w in sizes}


@pytest.mark.parametrize(("height", "width", "multiple"), LIMITS)
def test_the_example_is_legal_not_square_and_not_the_smallest(
    height: int, width: int, multiple: int
) -> None:
    limits = SizeLimits(min_height=height, min_width=width, multiple=multiple)
    n, h, w = example_size(limits)
    assert n == EXAMPLE[0] == 2
    assert h > limits.smallest()[0]
    assert w > limits.smallest()[1]
    assert h != w
    assert h % multiple == w % multiple == 0
    assert multiple > 1 or h % 2 or w % 2


def test_contents_have_structure_that_windows_can_see() -> None:
    pixels = content(5, 3, 64, 48, 3)
    assert pixels.shape == (3, 64, 48, 3)
    assert pixels.dtype == np.uint8
    cells = pixels.reshape(3, 8, 8, 6, 8, 3).mean((2, 4))  # (n, 8, 6, c): means of 8×8 windows
    noise = np.random.default_rng(5).integers(0, 256, pixels.shape)
    noise_cells = noise.reshape(3, 8, 8, 6, 8, 3).mean((2, 4))
    assert cells.std((1, 2)).min() > 20 > 15 > noise_cells.std((1, 2)).max()
    assert not np.array_equal(pixels[0], pixels[1])
    assert not np.array_equal(pixels, content(6, 3, 64, 48, 3))
    assert np.array_equal(pixels, content(5, 3, 64, 48, 3))


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 1, 40, 3), (1, 6, 8, 1)])
def test_contents_of_any_size(shape: tuple[int, int, int, int]) -> None:
    assert content(0, *shape).shape == shape


# --- the served network and its references


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        ("softmax", lambda z: np.exp(z) / np.exp(z).sum(1, keepdims=True)),
        ("sigmoid", lambda z: 1 / (1 + np.exp(-z))),
        ("none", lambda z: z),
    ],
)
def test_served_normalises_pixels_and_activates_logits(
    activation: Activation, expected: Callable[[np.ndarray], np.ndarray]
) -> None:
    network = PoolingClassifier(nn.Identity(), POOLS["avg"](), nn.Linear(1, 3))
    pixels = torch.tensor([[[[50], [150]]], [[[100], [250]]]], dtype=torch.uint8)  # (2, 1, 2, 1)
    with torch.no_grad():
        logits, probabilities, embedding = Served(network, GREY, activation)(pixels)
        assert embedding.tolist() == [[0.0], [1.5]]  # (pixel - 100) / 50, averaged
        assert torch.equal(logits, network.head(embedding))
    np.testing.assert_allclose(probabilities.numpy(), expected(logits.numpy()), rtol=1e-5)


def test_references_are_what_torch_answers_over_the_grid() -> None:
    limits = SizeLimits(min_height=1, min_width=1)
    network = Served(registry.build("seed_cnn"), GREY).eval()
    arrays = references(network, 1, limits)
    sizes = [arrays[f"pixels_{i:03d}"].shape[:3] for i in range(len(grid(limits)))]
    assert sizes == grid(limits)
    assert len(arrays) == (1 + len(OUTPUTS)) * len(sizes)
    pixels = torch.from_numpy(arrays["pixels_007"])
    with torch.no_grad():
        best = network(pixels)[0].argmax(1)
        classes = torch.stack([best, torch.full_like(best, 9)], 1)  # the last of ten
        answers = network(pixels, classes)
    for name, answer in zip(OUTPUTS, answers, strict=True):
        assert np.array_equal(arrays[f"{name}_007"], answer.numpy()), name
    assert arrays["cam_classes_007"].tolist() == classes.tolist()


class Normalised(PoolingClassifier):
    """Divides the pooled vector by its length, which backbone, pool and head do not say."""

    def embed(self, x: Tensor) -> Tensor:
        return F.normalize(super().embed(x))


class Doubled(PoolingClassifier):
    """Its forward does more than its parts."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 2


class Forgetful(GlobalAvgPool):
    """Pools otherwise, but explains itself as it did."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) ** 2 + 1


def test_a_network_that_pools_in_its_own_way_is_served_as_it_is_and_without_maps() -> None:
    network = Normalised(Calls(lambda x: x), POOLS["avg"](), nn.Linear(1, 2))
    assert not network.explains
    arrays = references(Served(network, GREY).eval(), 1, SizeLimits(min_height=1, min_width=1))
    assert "cam_000" not in arrays
    assert np.abs(arrays["embedding_005"]).tolist() == [[1.0], [1.0]]


def test_a_forward_that_does_more_than_its_parts_is_refused() -> None:
    network = Doubled(Calls(lambda x: x), POOLS["avg"](), nn.Linear(1, 2))
    with pytest.raises(CaptureError, match="forward gives other logits"):
        references(Served(network, GREY).eval(), 1, SizeLimits(min_height=1, min_width=1))


class Unsure(GlobalAvgPool):
    """Explains itself with what is no number."""

    def maps(self, x: Tensor) -> list[Tensor]:
        return [x * torch.nan]


@pytest.mark.parametrize("pool", [Forgetful, Unsure])
def test_a_pooling_that_explains_another_one_is_refused(pool: type[nn.Module]) -> None:
    network = PoolingClassifier(Calls(lambda x: x), pool(), nn.Linear(1, 2))
    with pytest.raises(CaptureError, match="maps do not average to their logits"):
        references(Served(network, GREY).eval(), 1, SizeLimits(min_height=1, min_width=1))


def test_a_class_below_0_is_chosen_by_its_rank() -> None:
    network = served(Calls(lambda x: x)).eval()
    head = network.network.head
    assert isinstance(head, nn.Linear)
    with torch.no_grad():
        head.weight.zero_()
        head.bias.copy_(torch.tensor([1.0, 3.0]))
        *_, chosen = network(torch.ones(2, 5, 5, 1), torch.tensor([[-1, -2, 0], [1, 1, -1]]))
    assert chosen.tolist() == [[1, 0, 0], [1, 1, 1]]


def test_a_network_that_fails_within_its_limits_is_refused_with_the_size() -> None:
    def only_small(x: Tensor) -> Tensor:
        if x.shape[2] > 200:
            raise ValueError("positions only up to 200")
        return x

    with pytest.raises(CaptureError, match=r"fails at \d×\d+×\d+: ValueError: positions only up"):
        references(served(Calls(only_small)), 1, SizeLimits(min_height=1, min_width=1))


# --- refusals


WITH_INDICES: list[Function] = [
    nn.AdaptiveMaxPool2d(3, return_indices=True),
    lambda x: F.adaptive_max_pool2d(x, 3, return_indices=True)[0],
    lambda x: F.adaptive_max_pool2d(x, 3, True)[1],
    lambda x: F.adaptive_max_pool2d_with_indices(x, (3, 3))[1],
    lambda x: torch._C._nn.adaptive_max_pool2d(x, [3, 3])[1],
]


@pytest.mark.parametrize("function", WITH_INDICES)
def test_indices_of_a_maximum_are_refused(function: Function) -> None:
    with pytest.raises(CaptureError, match=r"return_indices=True cannot .* take the values alone"):
        export_program(Pixels([function]), torch.zeros(*EXAMPLE, 1))


SIZED_BY_INPUT: list[Function] = [
    lambda x: F.adaptive_avg_pool2d(x, (x.shape[2] // 2, 3)),
    lambda x: F.adaptive_avg_pool2d(x, x.shape[3]),
    lambda x: F.adaptive_max_pool2d(x, (3, x.shape[3] // 2 + 1)),
    lambda x: F.adaptive_max_pool2d(input=x, output_size=x.shape[2:]),
]


@pytest.mark.parametrize("function", SIZED_BY_INPUT)
def test_an_output_size_that_follows_the_input_is_refused(function: Function) -> None:
    with pytest.raises(CaptureError, match=r"from the input's size; give it a fixed size, or None"):
        export_program(Pixels([function]), torch.zeros(*EXAMPLE, 1))


@pytest.mark.parametrize("size", [0, -1, (3, 0)])
def test_an_output_size_below_one_is_refused(size: int) -> None:
    with pytest.raises(CaptureError, match="each side must be 1 or more"):
        export_program(Pixels([nn.AdaptiveAvgPool2d(size)]), torch.zeros(*EXAMPLE, 1))


def test_a_pool_of_three_dimensions_is_refused() -> None:
    module = Pixels([lambda x: F.adaptive_avg_pool2d(x.flatten(0, 1), 3)])
    with pytest.raises(CaptureError, match=r"gets 3 dimensions; reshape .* \(n, c, h, w\)"):
        export_program(module, torch.zeros(*EXAMPLE, 1))


def test_a_baked_side_is_refused_in_a_few_lines() -> None:
    module = Pixels([lambda x: x.reshape(x.shape[0], 61, -1)])
    with pytest.raises(CaptureError, match=r"cannot keep batch, height and width dynamic") as said:
        export_program(module, torch.zeros(*EXAMPLE, 1))
    assert len(str(said.value).splitlines()) <= 6
