"""The networks digits-avg, digits-gem, … for `anypool export --import tests.digits.networks`.

Importing this registers them; their weights come from `--weights`, made by python -m tests.digits.
"""

from functools import partial

from models import labels
from models.card import Licence
from models.pool import POOLS, Head
from models.registry import Network, register
from tests.digits.cnn import ARGUMENTS, CLASSES, PREPROCESSING, classifier, name_of

LICENCE = Licence(
    name="CC-BY-4.0",
    notice=(
        "Random weights, or those that python -m tests.digits trains on: E. Alpaydin, C. Kaynak, "
        "Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, licensed "
        "under CC BY 4.0, as scikit-learn publishes it, resized."
    ),
)


def _in_words(pool: str) -> str:
    arguments = ARGUMENTS.get(pool, {})
    given = ", ".join(f"{name}={value}" for name, value in arguments.items())
    head = isinstance(POOLS[pool](**arguments), Head)
    return f"{pool}({given})" + ("" if head else ", then global average")


for _pool in POOLS:
    register(
        Network(
            name=name_of(_pool),
            build=partial(classifier, _pool),
            labels=partial(labels.numbered, CLASSES),
            preprocessing=PREPROCESSING,
            pooling=_in_words(_pool),
            licence=LICENCE,
        )
    )
