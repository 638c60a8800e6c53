"""Names as people type them."""

import pytest

from torchact import lookup

TABLE = {"leaky_relu": 1, "relu": 2, "binary_step": 3}
ALIASES = {"rectified linear unit": "relu", "LReLU": "leaky_relu"}


@pytest.mark.parametrize("name", ["leaky_relu", "LeakyReLU", "Leaky-ReLU", "LEAKY RELU", "leakyrelu", " leaky.relu "])
def test_capitals_and_separators_do_not_count(name):
    assert lookup.find(TABLE, name, "activation") == 1


@pytest.mark.parametrize(("alias", "entry"), [("lrelu", 1), ("Rectified Linear Unit", 2)])
def test_an_alias_finds_the_entry_it_stands_for(alias, entry):
    assert lookup.find(TABLE, alias, "activation", ALIASES) == entry


def test_an_unknown_name_lists_the_nearest_and_all_that_exists():
    with pytest.raises(ValueError, match=r"activation: unknown name 'rellu'; did you mean 'relu'") as raised:
        lookup.find(TABLE, "rellu", "activation")
    assert str(raised.value).endswith("Available: leaky_relu, relu, binary_step")


def test_an_entry_near_by_two_names_is_suggested_once():
    with pytest.raises(ValueError, match="unknown name 'rel'") as raised:
        lookup.find(TABLE, "rel", "activation", {"reluu": "relu"})
    assert str(raised.value).count("'relu'") == 1


@pytest.mark.parametrize("name", ["", "   ", "xyzzy"])
def test_a_name_near_nothing_still_lists_all_that_exists(name):
    with pytest.raises(ValueError, match=r"unknown name '.*'\. Available: leaky_relu, relu, binary_step"):
        lookup.find(TABLE, name, "activation")


@pytest.mark.parametrize("name", [None, 3, ["relu"]])
def test_a_name_that_is_no_string_is_a_type_error(name):
    with pytest.raises(TypeError, match=r"activation: expected a name \(str\)"):
        lookup.find(TABLE, name, "activation")
