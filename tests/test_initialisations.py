import math

import pytest
import torch
from torch import nn

from torchact import initialisations
from torchact.initialisations import INITIALISATIONS, Initialisation, Variances

SHAPES = [(512, 512), (256, 1024), (1024, 256)]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(params=INITIALISATIONS.values(), ids=INITIALISATIONS)
def initialisation(request: pytest.FixtureRequest) -> Initialisation:
    return request.param


@pytest.mark.parametrize(
    ("key", "weight", "bias"),
    [("default", 1 / 3, 1 / 3072), ("xavier", 1.0, 0.0), ("he", 2.0, 0.0), ("orthogonal", 1.0, 0.0)],
)
def test_variances_of_square_layers(key: str, weight: float, bias: float) -> None:
    assert INITIALISATIONS[key].variances(1024, 1024) == pytest.approx((weight, bias), rel=1e-15)


@pytest.mark.parametrize(("fan_in", "fan_out"), SHAPES)
def test_draws_have_the_stated_variances(initialisation: Initialisation, fan_in: int, fan_out: int) -> None:
    linear = initialisation.apply(nn.Linear(fan_in, fan_out), generator())
    stated = initialisation.variances(fan_in, fan_out)
    # Five standard errors of a Gaussian's variance: √(2/m) for m entries.
    assert fan_in * linear.weight.square().mean().item() == pytest.approx(
        stated.weight, rel=5 * math.sqrt(2 / linear.weight.numel())
    )
    assert linear.bias.square().mean().item() == pytest.approx(stated.bias, rel=5 * math.sqrt(2 / fan_out))


@pytest.mark.parametrize(("fan_in", "fan_out"), [(7, 5), (64, 64)])
def test_default_is_what_linear_draws(fan_in: int, fan_out: int) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        expected = nn.Linear(fan_in, fan_out)
    drawn = initialisations.get("default").apply(nn.Linear(fan_in, fan_out), generator(3))
    assert torch.equal(drawn.weight, expected.weight)
    assert torch.equal(drawn.bias, expected.bias)


@pytest.mark.parametrize(("fan_in", "fan_out"), [(32, 32), (16, 64), (64, 16)])
def test_orthogonal_is_an_isometry_of_the_smaller_space(fan_in: int, fan_out: int) -> None:
    weight = initialisations.get("orthogonal").apply(nn.Linear(fan_in, fan_out).double(), generator()).weight
    gram = weight.T @ weight if fan_in <= fan_out else weight @ weight.T
    torch.testing.assert_close(gram, torch.eye(min(fan_in, fan_out), dtype=torch.float64), rtol=0, atol=1e-13)


def test_apply_works_in_place_from_its_generator_alone(initialisation: Initialisation) -> None:
    linear = nn.Linear(8, 8, dtype=torch.float64)
    weight, state = linear.weight, torch.get_rng_state()
    assert initialisation.apply(linear, generator(1)) is linear
    assert linear.weight is weight
    assert weight.requires_grad
    assert weight.is_leaf
    assert torch.equal(torch.get_rng_state(), state)
    first = weight.detach().clone()
    assert torch.equal(initialisation.apply(linear, generator(1)).weight, first)
    assert not torch.equal(initialisation.apply(linear, generator(2)).weight, first)


def test_apply_without_a_bias_or_a_generator(initialisation: Initialisation) -> None:
    assert initialisation.apply(nn.Linear(8, 8, bias=False)).bias is None


def test_layers_reads_consecutive_widths() -> None:
    assert initialisations.get("xavier").layers([784, 100, 10]) == (
        Variances(1568 / 884, 0.0),
        Variances(200 / 110, 0.0),
    )
    assert initialisations.get("he").layers([3]) == ()


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("glorot", "xavier"),
        ("Kaiming", "he"),
        ("torch", "default"),
        ("PyTorch", "default"),
        ("Orthogonal", "orthogonal"),
    ],
)
def test_names(name: str, key: str) -> None:
    assert initialisations.get(name).key == key


def test_unknown_name_lists_what_exists() -> None:
    with pytest.raises(
        ValueError, match=r"init: unknown name 'xaver'; did you mean 'xavier'\? Available: default, xavier"
    ):
        initialisations.get("xaver", "init")
