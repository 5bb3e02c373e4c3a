"""Networks by name."""

from dataclasses import replace

import pytest

from models import registry
from models.registry import UnknownNetworkError


def test_the_networks_that_we_ship_are_there_in_order() -> None:
    names = registry.names()
    assert {"efficientnet_lite0", "resnet18", "seed_cnn"} <= set(names)
    assert list(names) == sorted(names)


def test_registering_a_name_twice_is_an_error() -> None:
    with pytest.raises(ValueError, match="'seed_cnn' is registered already"):
        registry.register(registry.get("seed_cnn"))


@pytest.mark.parametrize("name", ["", "../seed_cnn", "Seed", "a/b", ".hidden", "a" * 65])
def test_a_name_that_cannot_be_a_folder_or_a_url_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot name a network"):
        registry.register(replace(registry.get("seed_cnn"), name=name))
    assert name not in registry.names()


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UnknownNetworkError, match=r"'sead_cnn'; there are: .*resnet18, seed_cnn"):
        registry.get("sead_cnn")
    with pytest.raises(UnknownNetworkError, match="seed_cnn"):
        registry.build("sead_cnn")


def test_a_module_of_networks_that_is_not_there_is_named() -> None:
    with pytest.raises(UnknownNetworkError, match=r"cannot import no_such_module.*PYTHONPATH"):
        registry.import_networks("no_such_module")
