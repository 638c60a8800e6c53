import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import torchact
from torchact import catalogue, initialisations, modules, theory

DEPTH = 30
WIDTH = 1024

#: The geometric mean of √χ^l by layer, for inputs N(0, 1), 30 layers of 1,024 units.
RATIOS = {
    ("sigmoid", "default"): 0.141191,
    ("sigmoid", "xavier"): 0.235124,
    ("sigmoid", "he"): 0.315931,
    ("sigmoid", "orthogonal"): 0.235124,
    ("tanh", "default"): 0.571288,
    ("tanh", "xavier"): 0.938245,
    ("tanh", "he"): 1.036261,
    ("tanh", "orthogonal"): 0.938245,
    ("relu", "default"): 0.408248,
    ("relu", "xavier"): 0.707107,
    ("relu", "he"): 1.0,
    ("relu", "orthogonal"): 0.707107,
    ("leaky_relu", "default"): 0.408269,
    ("leaky_relu", "xavier"): 0.707142,
    ("leaky_relu", "he"): 1.000050,
    ("leaky_relu", "orthogonal"): 0.707142,
    ("identity", "default"): 0.577350,
    ("identity", "xavier"): 1.0,
    ("identity", "he"): 1.414214,
    ("identity", "orthogonal"): 1.0,
    ("binary_step", "default"): 0.0,
    ("binary_step", "xavier"): 0.0,
    ("binary_step", "he"): 0.0,
    ("binary_step", "orthogonal"): 0.0,
}

#: E[φ²] and E[φ'²] at q = 2, with 16 digits, by mpmath's quadrature and differentiation of formulas written out anew.
AT_TWO = {
    "sigmoid": (0.3184190769841847, 0.03702661208573727),
    "tanh": (0.5199757456639486, 0.3495082977466028),
    "logsigmoid": (1.381928418583695, 0.3184190769841847),
    "softsign": (0.2487434198058533, 0.170427089386019),
    "hardtanh": (0.6417172988776017, 0.5204998778130465),
    "hardsigmoid": (0.3022353640833871, 0.02683625406875863),
    "relu6": (0.9999577792931357, 0.4999889547515007),
    "prelu": (1.0625, 0.53125),
    "rrelu": (1.052517361111111, 0.5262586805555556),
    "squared_relu": (6.0, 4.0),
    "elu": (1.200114261999446, 0.6276978381552529),
    "selu": (1.722508397220268, 0.9466892277654012),
    "celu": (1.200114261999446, 0.6276978381552529),
    "softplus": (1.381928418583695, 0.3184190769841847),
    "silu": (0.799153151962803, 0.4268727248983248),
    "quick_gelu": (0.9130666569817108, 0.4819025972925091),
    "gelu": (0.9220828721100172, 0.4895119377916957),
    "gelu_tanh": (0.9221443551613911, 0.4895561211812481),
    "mish": (0.9467025580096057, 0.5014318499208205),
    "hardswish": (0.7795173309756335, 0.4335203161900316),
    "tanhshrink": (0.5998787283197431, 0.3894597890745001),
    "softshrink": (1.09825855743341, 0.7236736098317631),
    "hardshrink": (1.977354284351583, 0.7236736098317631),
    "gaussian": (0.3333333333333333, 0.2962962962962963),
    "snake": (2.36584219462253, 1.499999943732413),
}

ELEMENTWISE = [key for key, activation in catalogue.CATALOGUE.items() if activation.elementwise]


def predict(activation: theory.ActivationLike, initialisation: str, depth: int = DEPTH) -> theory.Profile:
    return theory.profile(activation, initialisations.get(initialisation).layers([WIDTH] * (depth + 1)))


# Expectations


def test_gaussian_moments() -> None:
    for q in (1e-6, 1.0, 50.0):
        assert theory.gaussian_expectation(torch.ones_like, q) == pytest.approx(1, rel=1e-14)
        assert theory.gaussian_expectation(torch.square, q) == pytest.approx(q, rel=1e-14)
        assert theory.gaussian_expectation(lambda x: x**4, q) == pytest.approx(3 * q**2, rel=1e-14)
        assert theory.gaussian_expectation(torch.cos, q) == pytest.approx(math.exp(-q / 2), abs=1e-14)


@pytest.mark.parametrize("q", [1e-300, 1e-12, 1e-3, 0.1, 1.0, 7.0, 1e3, 1e8, 1e30, 1e300])
def test_erf_has_closed_forms_at_every_scale(q: float) -> None:
    """Williams 1997, Computing with Infinite Networks: E[erf²] = (2/π) arcsin(2q/(1 + 2q)), and by hand E[erf'²]."""
    # The arctangent of the same angle, which does not lose digits as it nears π/2.
    value = 2 / math.pi * math.atan2(2 * q, math.sqrt(1 + 4 * q))
    slope = 4 / math.pi / math.sqrt(1 + 4 * q)
    assert theory.second_moment(torch.erf, q) == pytest.approx(value, rel=1e-14)
    assert theory.mean_square_derivative(torch.erf, q) == pytest.approx(slope, rel=1e-14)


@pytest.mark.parametrize("q", [1e-9, 1.0, 1e4])
def test_relu_and_leaky_relu_have_closed_forms(q: float) -> None:
    leaky = theory.nonlinearity("leaky_relu", negative_slope=0.3)
    assert theory.second_moment("relu", q) == pytest.approx(q / 2, rel=1e-14)
    assert theory.second_moment(leaky, q) == pytest.approx(q * (1 + 0.09) / 2, rel=1e-14)
    assert theory.chi("relu", q, 1.7) == pytest.approx(1.7 / 2, rel=1e-14)
    assert theory.chi(leaky, q, 1.7) == pytest.approx(1.7 * (1 + 0.09) / 2, rel=1e-14)
    assert theory.chi("identity", q, 1.7) == pytest.approx(1.7, rel=1e-14)
    assert theory.chi("binary_step", q, 1.7) == 0


@pytest.mark.parametrize("key", AT_TWO)
def test_expectations_agree_with_another_program(key: str) -> None:
    expected = pytest.approx(AT_TWO[key], rel=1e-14)
    assert (theory.second_moment(key, 2.0), theory.mean_square_derivative(key, 2.0)) == expected


@pytest.mark.parametrize("q", [1e-9, 0.01, 1.0, 1e4, 1e30])
@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (-0.5, 2.0), (-0.0, 6.0)])
def test_hardtanh_has_a_closed_form(low: float, high: float, q: float) -> None:
    """By integration by parts, a side at a time: E[min(relu(x), b)²] = q(½ - t) - b√q φ(b/√q) + b²t, t = P(x > b)."""

    def side(bound: float) -> float:
        a = bound / math.sqrt(q)
        inside = math.erf(a / math.sqrt(2)) / 2
        density = math.exp(-a * a / 2) / math.sqrt(2 * math.pi)
        return q * (inside - a * density) + bound * bound * (0.5 - inside)

    def steep(bound: float) -> float:
        return math.erf(bound / math.sqrt(2 * q)) / 2

    phi = theory.nonlinearity("hardtanh", min_val=low, max_val=high)
    cancelled = 1e-14 * q  # what the closed form itself loses where both bounds are near 0
    assert theory.second_moment(phi, q) == pytest.approx(side(-low) + side(high), rel=1e-13, abs=cancelled)
    assert theory.mean_square_derivative(phi, q) == pytest.approx(steep(-low) + steep(high), rel=1e-13)


@pytest.mark.parametrize("q", [1e-6, 0.3, 1.0, 1e3, 1e9])
def test_the_gaussian_has_a_closed_form(q: float) -> None:
    width = 1 + 4 * q
    assert theory.second_moment("gaussian", q) == pytest.approx(width**-0.5, rel=1e-14)
    assert theory.mean_square_derivative("gaussian", q) == pytest.approx(4 * q * width**-1.5, rel=1e-14)
    # At criticality q = E[φ²]/E[φ'²] = (1 + 4q)/4q, where the map falls with q.
    critical = (1 + math.sqrt(2)) / 2
    assert theory.critical_weight_variance("gaussian") == pytest.approx((1 + 4 * critical) ** 1.5 / (4 * critical))
    assert theory.fixed_point("gaussian", theory.critical_weight_variance("gaussian")) == pytest.approx(critical)


@pytest.mark.parametrize("q", [1e-9, 1.0, 1e4, 1e30])
def test_the_squared_relu_has_a_closed_form(q: float) -> None:
    assert theory.second_moment("squared_relu", q) == pytest.approx(1.5 * q * q, rel=1e-14)
    assert theory.mean_square_derivative("squared_relu", q) == pytest.approx(2 * q, rel=1e-14)


@pytest.mark.parametrize("q", [0.0, 1e-12, 1e-6, 1e-3, 0.08, 0.1, 1.0, 37.0, 1e3, 1e8, 1e300, math.inf])
@pytest.mark.parametrize("omega", [0.5, 30.0, -30.0])
def test_a_sine_has_a_closed_form_at_every_frequency(omega: float, q: float) -> None:
    decay = 2 * omega * omega * q
    value, slope = -math.expm1(-decay) / 2, omega * omega * (1 + math.exp(-decay)) / 2
    modules_and_functions: tuple[theory.ActivationLike, ...] = (
        theory.nonlinearity("sine", omega=omega),
        torchact.Sine(omega),
        theory.nonlinearity(lambda x: torch.sin(omega * x), period=2 * math.pi / abs(omega)),
    )
    for phi in modules_and_functions:
        assert theory.second_moment(phi, q) == pytest.approx(value, rel=1e-13)
        assert theory.mean_square_derivative(phi, q) == pytest.approx(slope, rel=1e-13)


@pytest.mark.parametrize("q", [0.0, 1e-6, 0.5, 20.0, 20.6, 1e3, 1e8, 1e300, math.inf])
@pytest.mark.parametrize("alpha", [0.0, 0.2, 1.0, -1.0, 7.0])
def test_the_snake_has_a_closed_form_at_every_frequency(alpha: float, q: float) -> None:
    """φ = x + sin²(αx)/α, where x and the sine's square are uncorrelated, and φ' = 1 + sin(2αx)."""
    decay = 2 * alpha * alpha * q if alpha else 0.0
    wave = 3 / 8 - math.exp(-decay) / 2 + math.exp(-4 * decay) / 8
    snake = theory.nonlinearity("snake", alpha=alpha)
    value = q + (wave / alpha**2 if alpha else 0.0)
    assert theory.second_moment(snake, q) == pytest.approx(value, rel=1e-13)
    assert theory.mean_square_derivative(snake, q) == pytest.approx(1 - math.expm1(-4 * decay) / 2, rel=1e-13)


@pytest.mark.parametrize("deviation", [0.1, 3.0, 6.0, 8.9, 9.1, 100.0])
def test_a_phase_counts_as_uniform_only_where_no_digit_tells(deviation: float) -> None:
    q = deviation**2
    raised = theory.nonlinearity(lambda x: 2 + torch.cos(x), period=2 * math.pi)
    expected = 4.5 + 4 * math.exp(-q / 2) + math.exp(-2 * q) / 2
    assert theory.second_moment(raised, q) == pytest.approx(expected, rel=1e-14)
    assert theory.mean_square_derivative(raised, q) == pytest.approx(-math.expm1(-2 * q) / 2, rel=1e-13)


def test_a_sine_is_critical_where_its_slope_at_zero_is_one() -> None:
    assert theory.critical_weight_variance("sine") == pytest.approx(1 / 900, rel=1e-13)
    assert theory.fixed_point("sine", 2.0) == pytest.approx(1.0, rel=1e-13)  # the phase is uniform: E[sin²] = 1/2


def test_selu_keeps_mean_zero_and_variance_one() -> None:
    """Klambauer et al. 2017: the fixed point that α and λ were chosen for, and that all others go to."""
    selu = catalogue.CATALOGUE["selu"]
    assert theory.gaussian_expectation(selu.value, 1.0, selu.kinks) == pytest.approx(0, abs=1e-15)
    assert theory.second_moment("selu", 1.0) == pytest.approx(1, rel=1e-14)
    for start in (1e-3, 0.5, 1.0, 3.0, 100.0):
        assert theory.fixed_point("selu", 1.0, start=start) == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("q", [0.05, 1.0, 40.0])
@pytest.mark.parametrize("place", [0.1, 0.5, 1.7])
def test_kinks_move_with_their_parameters(place: float, q: float) -> None:
    a = place / math.sqrt(q)
    outside = math.erfc(a / math.sqrt(2)) / 2
    density = math.exp(-a * a / 2) / math.sqrt(2 * math.pi)
    square = q * (outside + a * density)  # E[x², x > place]
    hard = theory.nonlinearity("hardshrink", lambd=place)
    soft = theory.nonlinearity("softshrink", lambd=place)
    step = theory.nonlinearity(nn.Threshold(place, -3.0))
    shrunk = square - 2 * place * math.sqrt(q) * density + place * place * outside
    assert theory.second_moment(hard, q) == pytest.approx(2 * square, rel=1e-13)
    assert theory.second_moment(soft, q) == pytest.approx(2 * shrunk, rel=1e-13, abs=1e-15)
    assert theory.second_moment(step, q) == pytest.approx(square + 9 * (1 - outside), rel=1e-13)
    for phi, sides in ((hard, 2), (soft, 2), (step, 1)):
        assert theory.mean_square_derivative(phi, q) == pytest.approx(sides * outside, rel=1e-13)


def test_a_softplus_that_is_cut_early_has_a_kink_there() -> None:
    cut = theory.nonlinearity("softplus", beta=2.0, threshold=1.2)
    assert 0.6 in cut.kinks
    told = theory.nonlinearity(lambda x: F.softplus(x, 2.0, 1.2), kinks=(0.6,))
    assert theory.second_moment(cut, 1.0) == pytest.approx(theory.second_moment(told, 1.0), rel=1e-14)


@pytest.mark.parametrize("key", ["tanhshrink", "softshrink", "squared_relu"])
def test_what_is_flat_at_zero_is_critical_with_a_bias_only(key: str) -> None:
    with pytest.raises(ValueError, match="bias_variance: no weight variance is critical"):
        theory.critical_weight_variance(key)
    critical = theory.critical_weight_variance(key, 0.1)
    low, high = 0.1, 10.0  # E[φ'²] rises with q: halve until χ = 1
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if theory.chi(key, middle, critical) < 1 else (low, middle)
    assert theory.variance_map(key, low, critical, 0.1) == pytest.approx(low, rel=1e-9)


def test_the_squared_relu_is_critical_at_four_times_the_bias_variance() -> None:
    assert theory.critical_weight_variance("squared_relu", 0.1) == pytest.approx(1 / (2 * 0.4), rel=1e-12)


def test_a_hardshrink_is_never_critical() -> None:
    """E[x², |x| > λ] is more than q P(|x| > λ), so that q < E[φ²]/E[φ'²] at every q."""
    for bias_variance in (0.0, 1e-6, 0.1, 10.0):
        with pytest.raises(ValueError, match="bias_variance: no weight variance is critical"):
            theory.critical_weight_variance("hardshrink", bias_variance)


def test_random_slopes_add_what_the_theory_says() -> None:
    lower, upper, q = 0.0, 1.0, 2.0
    generator = torch.Generator().manual_seed(0)
    x = math.sqrt(q) * torch.randn(400_000, dtype=torch.float64, generator=generator)
    slopes = torch.where(x > 0, 1.0, torch.rand(x.shape, dtype=torch.float64, generator=generator))
    squares = slopes.square()
    mean = theory.mean_square_derivative(nn.RReLU(lower, upper), q)
    error = 4 * squares.std().item() / math.sqrt(squares.numel())
    assert squares.mean().item() == pytest.approx(mean + (upper - lower) ** 2 / 24, abs=error)


def test_published_values_at_unit_variance() -> None:
    assert theory.second_moment("sigmoid", 1.0) == pytest.approx(0.29337904, abs=5e-9)
    assert theory.mean_square_derivative("sigmoid", 1.0) == pytest.approx(0.04483624, abs=5e-9)
    assert theory.second_moment("tanh", 1.0) == pytest.approx(0.39429449, abs=5e-9)
    assert theory.mean_square_derivative("tanh", 1.0) == pytest.approx(0.46440290, abs=5e-9)
    assert theory.mean_square_derivative("relu", 1.0) == pytest.approx(0.5, abs=5e-9)


@pytest.mark.parametrize(
    ("activation", "limit"), [("tanh", 1.0), (F.gelu, 1 / 4), (F.silu, 1 / 4), ("sigmoid", 1 / 16), ("relu", 1 / 2)]
)
def test_small_signal_limits(activation: theory.ActivationLike, limit: float) -> None:
    assert theory.chi(activation, 1e-12, 2.0) == pytest.approx(2 * limit, rel=1e-11)
    assert theory.chi(activation, 0.0, 2.0) == pytest.approx(2 * limit, rel=1e-14)


def test_without_a_signal_the_value_is_exactly_that_at_zero() -> None:
    assert theory.second_moment("sigmoid", 0.0) == 0.25
    assert theory.second_moment("relu", 0.0) == 0
    assert theory.second_moment("binary_step", 0.0) == 1
    assert theory.variance_map("tanh", 0.0, 1.5, 0.05) == 0.05


def test_an_infinite_signal_has_its_limits() -> None:
    assert theory.second_moment("sigmoid", math.inf) == pytest.approx(0.5, rel=1e-14)
    assert theory.second_moment("relu", math.inf) == math.inf
    assert theory.chi("relu", math.inf, 2.0) == pytest.approx(1, rel=1e-14)
    assert theory.chi("tanh", math.inf, 2.0) == pytest.approx(0, abs=1e-100)


@pytest.mark.parametrize("key", ELEMENTWISE)
@pytest.mark.parametrize("q", [0.2, 3.0])
def test_quadrature_agrees_with_monte_carlo(key: str, q: float) -> None:
    samples = math.sqrt(q) * torch.randn(400_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    activation = catalogue.CATALOGUE[key]
    unseen = 14 / samples.numel()  # what no sample met has at most this probability, but for one case in e^14
    for function, expectation in (
        (activation.value, theory.second_moment(key, q)),
        (activation.derivative, theory.mean_square_derivative(key, q)),
    ):
        squares = function(samples).square()
        standard_error = squares.std().item() / math.sqrt(squares.numel())
        assert abs(squares.mean().item() - expectation) <= 4 * standard_error + unseen * squares.max().item() + 1e-14


def test_one_gauss_hermite_rule_across_a_kink_is_nine_percent_wrong() -> None:
    count = 199
    jacobi = torch.diag(torch.arange(1, count, dtype=torch.float64).sqrt(), -1)
    nodes, vectors = torch.linalg.eigh(jacobi)
    nodes = torch.where(nodes.abs() < 1e-9, 0.0, nodes)  # the middle node of an odd rule is on the kink
    weights = vectors[0].square()
    assert float((weights * nodes.square()).sum()) == pytest.approx(1, rel=1e-12)
    hermite = float((weights * F.relu(nodes).sign().square()).sum())
    assert abs(hermite / 0.5 - 1) == pytest.approx(0.09, abs=0.005)
    assert theory.mean_square_derivative("relu", 1.0) == pytest.approx(0.5, rel=1e-14)


def test_kinks_away_from_zero_need_telling() -> None:
    def clipped_moment(cap: float) -> float:  # E[min(relu(z), c)²] by integration by parts
        tail = math.erfc(cap / math.sqrt(2)) / 2
        density = math.exp(-cap * cap / 2) / math.sqrt(2 * math.pi)
        return 0.5 - tail - cap * density + cap * cap * tail

    cap = 0.7

    def clip(x: Tensor) -> Tensor:
        return x.clamp(0, cap)

    told, untold = theory.nonlinearity(clip, kinks=(cap,)), theory.nonlinearity(clip)
    assert theory.second_moment(told, 1.0) == pytest.approx(clipped_moment(cap), rel=1e-14)
    assert theory.second_moment(untold, 1.0) != pytest.approx(clipped_moment(cap), rel=1e-9)
    slope = 0.5 - math.erfc(cap / math.sqrt(2)) / 2
    assert theory.mean_square_derivative(told, 1.0) == pytest.approx(slope, rel=1e-13)


# What counts as an activation


@pytest.mark.parametrize("key", ELEMENTWISE)
@pytest.mark.parametrize("q", [0.0, 1.0, 40.0])
def test_every_spelling_of_an_activation_agrees(key: str, q: float) -> None:
    record = catalogue.CATALOGUE[key]
    usual = {name: value for name, value in record.parameters.items() if name != record.learnable}
    learnt = {
        name: torch.tensor(record.parameters[name], dtype=torch.float64) for name in record.parameters.keys() - usual
    }
    function = functools.partial(getattr(torchact.functional, key), **usual, **learnt)
    period = theory.nonlinearity(key).period
    spellings: list[theory.ActivationLike] = [
        record,
        record.name,
        modules.create(key),
        theory.nonlinearity(key, **record.parameters),
        theory.nonlinearity(key, **learnt),
        theory.nonlinearity(function, kinks=record.kinks, period=period),
    ]
    if record.torch_module is not None:
        spellings.append(record.torch_module(**usual))
    for spelling in spellings:
        assert theory.second_moment(spelling, q) == pytest.approx(theory.second_moment(key, q), rel=1e-13)
        assert theory.chi(spelling, q, 2.0) == pytest.approx(theory.chi(key, q, 2.0), rel=1e-13)


def test_a_module_brings_its_parameters() -> None:
    assert theory.chi(nn.LeakyReLU(0.5), 1.0, 2.0) == pytest.approx(1.25, rel=1e-14)
    assert theory.chi(theory.nonlinearity(torchact.LeakyReLU(0.5)), 1.0, 2.0) == pytest.approx(1.25, rel=1e-14)


@pytest.mark.parametrize(
    ("module", "key", "parameters"),
    [
        (nn.PReLU(init=0.1), "prelu", {"weight": 0.1}),
        (torchact.PReLU(init=0.1).bfloat16(), "prelu", {"weight": torch.tensor(0.1).bfloat16().item()}),
        (torchact.Swish(2.5, learnable=True), "swish", {"beta": 2.5}),
        (torchact.Snake(0.5, learnable=True), "snake", {"alpha": 0.5}),
        (nn.Threshold(0.5, -1.0), "threshold", {"threshold": 0.5, "value": -1.0}),
        (nn.GELU(approximate="tanh"), "gelu_tanh", {}),
    ],
)
def test_a_learnt_parameter_counts_with_its_value(module: nn.Module, key: str, parameters: dict[str, Any]) -> None:
    phi = theory.nonlinearity(key, **parameters)
    for parameter in module.parameters():
        assert parameter.requires_grad
    # A learnt 0.1 is float32's.
    assert theory.second_moment(module, 0.7) == pytest.approx(theory.second_moment(phi, 0.7), rel=1e-7)
    assert theory.chi(module, 0.7, 2.0) == pytest.approx(theory.chi(phi, 0.7, 2.0), rel=1e-7)


def test_several_learnt_parameters_have_no_common_theory() -> None:
    message = r"weight: expected a number or a tensor with one entry, .* got a tensor of shape \(3,\)"
    for call in (lambda: theory.chi(nn.PReLU(3), 1.0, 1.0), lambda: theory.nonlinearity("prelu", weight=torch.ones(3))):
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(ValueError, match=r"beta: .* shape \(4,\)"):
        theory.chi(torchact.Swish(learnable=True, num_parameters=4), 1.0, 1.0)


def test_parameters_reach_a_function_and_a_nonlinearity() -> None:
    elu = theory.nonlinearity(F.elu, alpha=0.5)
    assert theory.chi(elu, 1e-20, 1.0) == pytest.approx((1 + 0.25) / 2, rel=1e-9)
    scaled = theory.Nonlinearity(lambda x, gain=1.0: gain * x, lambda x, gain=1.0: gain * torch.ones_like(x))
    assert theory.chi(theory.nonlinearity(scaled, gain=3.0), 1.0, 1.0) == pytest.approx(9, rel=1e-14)


@pytest.mark.parametrize("surrogate", catalogue.SURROGATES)
def test_a_surrogate_changes_the_gradient_and_not_the_signal(surrogate: str) -> None:
    step = theory.nonlinearity("step", surrogate=surrogate)
    squared = lambda x: catalogue.SURROGATES[surrogate].derivative(x).square()  # noqa: E731
    assert theory.second_moment(step, 2.0) == pytest.approx(0.5, rel=1e-14)
    assert theory.chi(step, 2.0, 3.0) == pytest.approx(3 * theory.gaussian_expectation(squared, 2.0), rel=1e-14)
    assert theory.chi(step, 2.0, 3.0) > 0


@pytest.mark.parametrize(
    "activation",
    [
        *(key for key in catalogue.CATALOGUE if key not in ELEMENTWISE),
        catalogue.CATALOGUE["softmax"],
        nn.Softmax(dim=-1),
        nn.GLU(),
        lambda x: torch.softmax(x, -1),
        F.glu,
    ],
)
def test_what_mixes_its_inputs_is_refused(activation: theory.ActivationLike) -> None:
    with pytest.raises(ValueError, match=r"activation: expected an elementwise .* which mixes its inputs"):
        theory.profile(activation, [(1.0, 0.0)])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: theory.nonlinearity("rleu"), ValueError, r"activation: unknown name 'rleu'; did you mean 'relu'"),
        (lambda: theory.nonlinearity(3), TypeError, "activation: expected a name, .* got 3"),
        (lambda: theory.nonlinearity("relu", slope=1), TypeError, "slope"),
        (lambda: theory.nonlinearity("step", surrogate="no"), ValueError, "surrogate: unknown name 'no'"),
        (
            lambda: theory.nonlinearity(torch.sin, period=0.0),
            ValueError,
            r"period: expected a positive number, got 0\.0",
        ),
        (lambda: theory.second_moment("relu", -1.0), ValueError, r"q: expected a number ≥ 0, got -1\.0"),
        (lambda: theory.chi("relu", math.nan, 1.0), ValueError, "q: expected a number ≥ 0, got nan"),
        (lambda: theory.chi("relu", 1.0, -2.0), ValueError, "weight_variance: expected a number ≥ 0"),
        (lambda: theory.variance_map("relu", 1.0, 1.0, -2.0), ValueError, "bias_variance: expected a number ≥ 0"),
        (lambda: theory.profile("relu", []), ValueError, "layers: expected .* got none"),
        (lambda: theory.profile("relu", [(1.0, -1.0)]), ValueError, "bias_variance: expected a number ≥ 0"),
        (lambda: theory.profile("relu", [(1.0, 0.0)], -1.0), ValueError, "input_mean_square: expected a number ≥ 0"),
        (lambda: theory.fixed_point("relu", 1.0, start=0.0), ValueError, "start: expected a positive, finite q"),
        (lambda: theory.critical_weight_variance("relu", 0.1), ValueError, "bias_variance: no weight variance"),
        (lambda: theory.critical_weight_variance("step"), ValueError, "bias_variance: no weight variance"),
    ],
)
def test_errors_name_the_argument(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


# Profiles


@pytest.mark.parametrize(("activation", "initialisation"), RATIOS)
def test_ratio_per_layer(activation: str, initialisation: str) -> None:
    expected = RATIOS[activation, initialisation]
    assert predict(activation, initialisation).ratio_per_layer == pytest.approx(expected, abs=5e-7)


def test_the_linear_orthogonal_network_keeps_every_gradient() -> None:
    assert predict("linear", "orthogonal").gradient_norms == pytest.approx((1.0,) * DEPTH, rel=1e-9)


def test_profile_iterates_the_map_from_the_input() -> None:
    layers = initialisations.get("xavier").layers([784, 100, 100, 10])
    profile = theory.profile("tanh", layers, input_mean_square=0.1)
    assert profile.q[0] == pytest.approx(0.1 * 1568 / 884, rel=1e-14)
    assert profile.q[1] == pytest.approx(theory.variance_map("tanh", profile.q[0], 1.0), rel=1e-14)
    assert profile.q[2] == pytest.approx(theory.variance_map("tanh", profile.q[1], 200 / 110), rel=1e-14)
    assert profile.chi == pytest.approx(
        (theory.chi("tanh", profile.q[0], 1.0), theory.chi("tanh", profile.q[1], 200 / 110)), rel=1e-14
    )
    norms = (math.sqrt(profile.chi[0] * profile.chi[1]), math.sqrt(profile.chi[1]), 1.0)
    assert profile.gradient_norms == pytest.approx(norms, rel=1e-14)
    assert profile.ratio_per_layer == pytest.approx(math.sqrt(norms[0]), rel=1e-14)


def test_a_single_layer_has_no_ratio_to_speak_of() -> None:
    profile = theory.profile("tanh", [(2.0, 0.5)])
    assert (profile.q, profile.chi, profile.gradient_norms, profile.ratio_per_layer) == ((2.5,), (), (1.0,), 1.0)


def test_a_shallow_network_is_not_at_the_fixed_point() -> None:
    for activation, weight_variance, error in (("tanh", 1.0, 0.06), (F.gelu, 2.0, 0.17)):
        measured = theory.profile(activation, [(weight_variance, 0.0)] * DEPTH).ratio_per_layer
        q = theory.fixed_point(activation, weight_variance)
        fixed = math.sqrt(theory.chi(activation, q, weight_variance))
        assert abs(fixed / measured - 1) == pytest.approx(error, abs=0.04)


def test_depths_that_leave_the_floats_stay_finite_or_say_so() -> None:
    faded = theory.profile("sigmoid", [(1 / 3, 0.0)] * 1000)
    assert faded.gradient_norms[0] == 0
    assert 0.1 < faded.ratio_per_layer < 0.2
    assert faded.layers_above(0.0) == 1000
    grown = theory.profile("linear", [(2.0, 0.0)] * 1100)
    assert grown.q[-1] == math.inf
    assert grown.ratio_per_layer == pytest.approx(math.sqrt(2), rel=1e-9)
    assert theory.profile("binary_step", [(2.0, 0.0)] * 4).gradient_norms == (0.0, 0.0, 0.0, 1.0)


def test_layers_above_counts_from_the_last_layer() -> None:
    profile = theory.profile("relu", [(0.5, 0.0)] * 10)  # halves in each layer
    assert profile.layers_above(0.3) == 2
    assert profile.layers_above(2.0) == 0
    assert profile.layers_above(1e-9) == 10


# Fixed points and criticality


@pytest.mark.parametrize("start", [1e-4, 1.0, 300.0])
@pytest.mark.parametrize(
    ("activation", "weight_variance", "bias_variance"), [("tanh", 1.5, 0.05), ("sigmoid", 1.0, 1.0), ("relu", 1.0, 0.3)]
)
def test_fixed_point_is_where_the_iteration_ends(
    activation: str, weight_variance: float, bias_variance: float, start: float
) -> None:
    q = theory.fixed_point(activation, weight_variance, bias_variance, start)
    assert theory.variance_map(activation, q, weight_variance, bias_variance) == pytest.approx(q, rel=1e-13)
    end = start
    for _ in range(200):
        end = theory.variance_map(activation, end, weight_variance, bias_variance)
    assert q == pytest.approx(end, rel=1e-12)


def test_fixed_points_at_the_ends_and_everywhere() -> None:
    assert theory.fixed_point("relu", 1.0, 0.3) == pytest.approx(0.6, rel=1e-13)
    assert theory.fixed_point("tanh", 1.0) == 0  # critical: slower than any exponential, yet it dies out
    assert theory.fixed_point("relu", 1.999) == 0
    assert theory.fixed_point("relu", 2.0, start=5.0) == 5
    assert theory.fixed_point("relu", 2.0, 0.1) == math.inf
    assert theory.fixed_point("binary_step", 2.0, 0.1) == pytest.approx(1.1, rel=1e-13)


def test_neighbouring_layers_of_a_wide_gaussian_sigmoid_network() -> None:
    """W ~ N(0, 1/n), b ~ N(0, 1): each layer learns 4.882 times slower than the next."""
    q = theory.fixed_point("sigmoid", 1.0, 1.0)
    assert 1 / math.sqrt(theory.chi("sigmoid", q, 1.0)) == pytest.approx(4.882, abs=5e-4)


@pytest.mark.parametrize(
    ("activation", "bias_variance", "expected", "tolerance"),
    [
        ("tanh", 0.05, 1.76, 5e-3),
        ("tanh", 0.0, 1.0, 1e-14),
        ("relu", 0.0, 2.0, 1e-14),
        ("leaky_relu", 0.0, 2 / 1.0001, 1e-14),
        ("identity", 0.0, 1.0, 1e-14),
        # The points where ∂V/∂q = 1 as well: Roberts, Yaida and Hanin 2022, arXiv:2106.10165, chapter 5.
        (F.silu, 0.55514317, 1.98800468, 5e-8),
        (F.gelu, 0.17292239, 1.98305826, 5e-8),
    ],
)
def test_critical_weight_variance(
    activation: theory.ActivationLike, bias_variance: float, expected: float, tolerance: float
) -> None:
    assert theory.critical_weight_variance(activation, bias_variance) == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize(
    ("activation", "bias_variance"), [("tanh", 1e-6), ("tanh", 0.05), ("tanh", 5.0), ("sigmoid", 0.0), (F.selu, 0.1)]
)
def test_chi_is_one_at_the_critical_fixed_point(activation: theory.ActivationLike, bias_variance: float) -> None:
    critical = theory.critical_weight_variance(activation, bias_variance)
    q = theory.fixed_point(activation, critical, bias_variance)
    assert theory.chi(activation, q, critical) == pytest.approx(1, rel=1e-10)
    for factor in (0.9, 1.1):
        q = theory.fixed_point(activation, factor * critical, bias_variance)
        assert (theory.chi(activation, q, factor * critical) > 1) == (factor > 1)


def test_depth_scale() -> None:
    assert theory.depth_scale("relu", 2 / math.e) == pytest.approx(1, rel=1e-12)
    assert theory.depth_scale("linear", math.e) == pytest.approx(1, rel=1e-12)
    assert theory.depth_scale("relu", 2.0) == math.inf
    assert theory.depth_scale("tanh", 1.0) == math.inf
    assert theory.depth_scale("binary_step", 2.0) == 0
    critical = theory.critical_weight_variance("tanh", 0.05)
    below = [theory.depth_scale("tanh", factor * critical, 0.05) for factor in (0.6, 0.8, 0.99)]
    above = [theory.depth_scale("tanh", factor * critical, 0.05) for factor in (2.0, 1.4, 1.01)]
    assert below == sorted(below)
    assert above == sorted(above)


# Real networks


class Network:
    """An unbroken chain of square layers with one activation between them, for inputs that are N(0, 1)."""

    def __init__(self, initialisation: str, width: int = WIDTH, depth: int = DEPTH, **options: Any) -> None:
        generator = torch.Generator().manual_seed(0)
        record = initialisations.get(initialisation)
        empty = (nn.utils.skip_init(nn.Linear, width, width, **options) for _ in range(depth))
        self.layers = [record.apply(linear, generator) for linear in empty]

    @property
    def weights(self) -> list[Tensor]:
        return [layer.weight for layer in self.layers]

    def preactivations(self, activation: nn.Module, samples: int = 32) -> list[Tensor]:
        """Return z^l of every layer, (samples, width) each."""
        signal = self._gaussian(samples, seed=1001)
        preactivations = []
        for layer in self.layers:
            preactivations.append(layer(signal))
            signal = activation(preactivations[-1])
        return preactivations

    def backpropagate(self, preactivations: list[Tensor], to: list[Tensor]) -> list[Tensor]:
        """Return the gradients that a last δ of N(0, 1) has at ``to``."""
        cotangent = self._gaussian(len(preactivations[-1]), seed=1002)
        return list(torch.autograd.grad(preactivations[-1], to, cotangent, retain_graph=True))

    def deltas(self, activation: nn.Module) -> list[Tensor]:
        """Return δ^l = ∂L/∂z^l of every layer."""
        preactivations = self.preactivations(activation)
        return self.backpropagate(preactivations, preactivations)

    def _gaussian(self, samples: int, seed: int) -> Tensor:
        # The seeds differ from the weights': a generator with the same seed would repeat them.
        weight = self.layers[0].weight
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(samples, weight.shape[1], dtype=weight.dtype, generator=generator)


def norms(deltas: Iterable[Tensor]) -> list[float]:
    """Return the root mean square over samples of ‖δ^l‖, which is the theory's quantity, summed in float64."""
    return [delta.double().square().sum(1).mean().sqrt().item() for delta in deltas]


def ratio_per_layer(deltas: Sequence[Tensor]) -> float:
    first, *_, last = norms(deltas)
    return (first / last) ** (1 / (len(deltas) - 1))


@pytest.fixture(scope="module", params=initialisations.INITIALISATIONS)
def wide(request: pytest.FixtureRequest) -> tuple[str, Network]:
    return request.param, Network(request.param)


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu", "leaky_relu", "identity"])
def test_a_real_network_is_within_one_percent(wide: tuple[str, Network], activation: str) -> None:
    initialisation, network = wide
    measured = ratio_per_layer(network.deltas(modules.create(activation)))
    assert measured == pytest.approx(predict(activation, initialisation).ratio_per_layer, rel=0.01)


def test_a_real_network_has_the_predicted_signal(wide: tuple[str, Network]) -> None:
    initialisation, network = wide
    measured = [z.square().mean().item() for z in network.preactivations(nn.Tanh())]
    # Where every sample has much the same activations, q^l averages one square a unit: standard error q√(2/width).
    assert measured == pytest.approx(predict("tanh", initialisation).q, rel=5 * math.sqrt(2 / WIDTH))


def test_a_binary_step_passes_no_gradient_and_its_surrogate_the_predicted_one(wide: tuple[str, Network]) -> None:
    initialisation, network = wide
    assert norms(network.deltas(torchact.BinaryStep()))[:-1] == [0.0] * (DEPTH - 1)
    assert predict("binary_step", initialisation).gradient_norms[:-1] == (0.0,) * (DEPTH - 1)
    surrogate = torchact.BinaryStep("sigmoid")
    predicted = predict(surrogate, initialisation).ratio_per_layer
    assert ratio_per_layer(network.deltas(surrogate)) == pytest.approx(predicted, rel=0.01)


def test_the_linear_orthogonal_network_keeps_every_real_gradient() -> None:
    """At any width, since it is exact and no limit: hence the narrow one."""
    measured = norms(Network("orthogonal", width=128, dtype=torch.float64).deltas(nn.Identity()))
    assert measured == pytest.approx([measured[-1]] * DEPTH, rel=1e-9)


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "identity"])
def test_weight_gradients_hide_what_layer_gradients_show(activation: str) -> None:
    """⟨W^l, ∂L/∂W^l⟩ is the same in every layer of a homogeneous network, whatever happens to δ^l."""
    network = Network("xavier", width=512, bias=False, dtype=torch.float64)
    preactivations = network.preactivations(modules.create(activation))
    gradients = network.backpropagate(preactivations, network.weights)
    products = [(weight * gradient).sum().item() for weight, gradient in zip(network.weights, gradients, strict=True)]
    assert products == pytest.approx([products[0]] * DEPTH, rel=1e-10)
    sizes = [gradient.norm().item() for gradient in gradients]
    assert max(sizes) / min(sizes) < 3
    layer_norms = norms(network.backpropagate(preactivations, preactivations))
    predicted = predict(activation, "xavier").gradient_norms[0]
    assert layer_norms[-1] / layer_norms[0] == pytest.approx(1 / predicted, rel=0.5)


def test_relu_with_xavier_fades_23_000_fold() -> None:
    assert 1 / predict("relu", "xavier").gradient_norms[0] == pytest.approx(2**14.5, rel=1e-12)  # 23,170


def test_float32_norms_underflow_where_the_gradient_does_not() -> None:
    assert torch.full((1024,), 1e-26).norm() == 0
    deltas = Network("default").deltas(nn.Sigmoid())
    assert deltas[0].dtype == torch.float32
    assert deltas[0].count_nonzero() == deltas[0].numel()
    assert deltas[0].norm(dim=1).count_nonzero() == 0
    predicted = norms(deltas)[-1] * predict("sigmoid", "default").gradient_norms[0]
    assert norms(deltas)[0] == pytest.approx(predicted, rel=1.01 ** (DEPTH - 1) - 1)
    assert 0 < predicted < 1e-23


def test_leaky_relu_does_not_cure_vanishing() -> None:
    leaky, relu = (predict(activation, "xavier").ratio_per_layer for activation in ("leaky_relu", "relu"))
    assert leaky - relu == pytest.approx(0.707142 - 0.707107, abs=1e-6)


def test_not_sigmoid_is_not_safe() -> None:
    assert predict("tanh", "he").ratio_per_layer == pytest.approx(1.036, abs=5e-4)
    assert predict("linear", "he").ratio_per_layer == pytest.approx(1.41, abs=5e-3)
    assert 1 / predict("relu", "default").ratio_per_layer == pytest.approx(2.45, abs=5e-3)
