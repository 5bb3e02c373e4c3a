"""Trained networks keep what they learnt, all the way to the service: `make digits`, in short."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from models.pool import POOLS
from models.weights import seeded
from tests.digits import data
from tests.digits.answers import Answers, ask
from tests.digits.artifact import export
from tests.digits.cnn import CLASSES, classifier, name_of, normalised
from tests.digits.data import Digits, png
from tests.digits.table import Comparison, markdown
from tests.digits.train import SMALLEST, train
from tests.e2e.server import Server

EPOCHS = {"gem": 5, "adaptive_avg": 3}  # enough for far better than chance
SIZES = ((28, 28), (33, 40), (48, 37))  # the first is the stock exporter's example


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Comparison]:
    """Both networks trained, exported and served; each asked about all held-out digits."""
    digits, held_out = data.load()
    sets = [held_out.at(*size) for size in SIZES]
    out = tmp_path_factory.mktemp("digits")
    found = {}
    for pool, epochs in EPOCHS.items():
        network = train(pool, digits, epochs)
        store = export(network, pool, out)
        found[pool] = Comparison.of(pool, network, sets)
    with Server(store, "--model", name_of("gem"), "--batching", "mixed") as server:
        for pool, comparison in found.items():
            comparison.by_service = ask(server.url, pool, sets)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("pool", EPOCHS)
def test_the_service_is_right_as_often_as_torch_and_that_is_often(
    pool: str, compared: dict[str, Comparison]
) -> None:
    comparison = compared[pool]
    assert comparison.served_as_trained
    assert comparison.other_classes == 0
    assert comparison.difference < 1e-4
    for digits, answers in zip(comparison.sets, comparison.by_service, strict=True):
        assert answers.right(digits) > 0.8 * len(digits)


@pytest.mark.slow
def test_the_stock_exporter_is_wrong_or_fails_where_cells_depend_on_the_size(
    compared: dict[str, Comparison],
) -> None:
    assert [float(outcome) > 80 for outcome in compared["gem"].by_stock] == [True] * 3
    example, *others = compared["adaptive_avg"].by_stock
    assert float(example) > 80
    for outcome in others:
        assert outcome == "fails" or outcome.startswith("wrong: ")


@pytest.mark.slow
def test_the_table_has_three_rows_for_each_pooling(compared: dict[str, Comparison]) -> None:
    lines = markdown(list(compared.values())).splitlines()
    assert lines[0] == "| pooling | correct, % | 28×28 | 33×40 | 48×37 |"
    who = [line.split(" | ")[1] for line in lines[2:]]
    assert who == ["torch", "service", "stock exporter"] * len(EPOCHS)
    assert len({line.count("|") for line in lines}) == 1


def test_one_image_may_differ_and_two_may_not() -> None:
    digits = Digits(torch.zeros(4, 28, 28, dtype=torch.uint8), torch.arange(4))
    right, one_off, two_off = (
        Answers(torch.tensor(classes), torch.ones(4))
        for classes in ([0, 1, 2, 3], [0, 1, 2, 9], [0, 1, 9, 9])
    )
    for served, verdict in ((right, True), (one_off, True), (two_off, False)):
        comparison = Comparison("avg", [digits], [right], ["100.0"], None, [served])
        assert comparison.served_as_trained is verdict
        assert comparison.other_classes == int((served.classes == 9).sum())


@pytest.mark.parametrize("pool", POOLS)
def test_every_pooling_has_a_network_that_can_be_trained_at_the_smallest_size(pool: str) -> None:
    images = data.load()[0].at(SMALLEST, SMALLEST).images[:3]
    network = classifier(pool).train()
    with seeded(0):  # some poolings draw
        logits = network(normalised(images))
    assert logits.shape == (3, CLASSES)
    logits.square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_the_split_is_always_the_same_and_has_every_class_in_its_share() -> None:
    (train_part, held_out), (_, again) = data.load(), data.load()
    assert len(train_part) + len(held_out) == 1797
    assert torch.equal(held_out.images, again.images)
    shares = [torch.bincount(part.labels, minlength=CLASSES) / len(part)
              for part in (train_part, held_out)]  # fmt: skip
    assert (shares[0] - shares[1]).abs().max() < 0.005
    assert int(held_out.images.max()) == 255


def test_a_png_holds_exactly_the_greys_that_torch_is_given() -> None:
    image = data.load()[1].at(20, 37).images[0]
    opened = Image.open(io.BytesIO(png(image)))
    assert opened.mode == "L"
    assert np.array_equal(np.asarray(opened), image.numpy())
