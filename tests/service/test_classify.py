"""Which classes are answered: how many, how probable, of which kind of model."""

import numpy as np
import pytest

from models.card import Activation, Card
from service.classify import Options, predictions
from service.engine import Scores
from tests.models.test_card import make_card


def card(activation: Activation) -> Card:
    return make_card().model_copy(update={"activation": activation})


def scores(*probabilities: float) -> Scores:
    row = np.array([probabilities], np.float32)
    return Scores(row, row, None, np.argsort(-row, axis=1, kind="stable"))


MANY = scores(0.2, 0.9, 0.5, 0.1, 0.9, 0.6, 0.7, 0.5, 0.0, 1.0)  # several classes at once


@pytest.mark.parametrize(
    ("options", "answered"),
    [
        (Options(), [9, 1, 4, 6, 5]),
        (Options(threshold=0.5), [9, 1, 4, 6, 5, 2, 7]),
        (Options(threshold=0), [9, 1, 4, 6, 5, 2, 7, 0, 3, 8]),
        (Options(threshold=1), [9]),
        (Options(threshold=0.5, top_k=2), [9, 1]),
        (Options(threshold=0.5, min_probability=0.8), [9, 1, 4]),
        (Options(threshold=0.8, min_probability=0.5), [9, 1, 4]),
        (Options(threshold=0.6, classes=(0, 4, 5)), [4, 5]),
    ],
)
def test_a_threshold_answers_all_classes_from_it_up(options: Options, answered: list[int]) -> None:
    found = predictions(card("sigmoid"), MANY, options)
    assert [prediction.index for prediction in found] == answered


def test_scores_that_are_no_probabilities_may_be_negative() -> None:
    raw = scores(-3.0, -1.0, -7.5, *[-9.0] * 7)
    found = predictions(card("none"), raw, Options(top_k=3))
    assert [(p.index, p.probability) for p in found] == [(1, -1.0), (0, -3.0), (2, -7.5)]
