"""The float64 reference against 50 digits and more: formulas written out anew, and differentiated by SymPy."""

import functools
import math

import mpmath
import pytest
import sympy
import torch
from sympy import Piecewise, Rational, erfc, exp, log, pi, sin, sqrt, tanh

from benchmarks.accuracy import VARIANTS
from benchmarks.ulp import value_and_gradients
from torchact import functional
from torchact.catalogue import CATALOGUE

DOUBLE = torch.finfo(torch.float64)
X, P = sympy.symbols("x p", real=True)  # input and parameter, or what is gated and what gates it


def softplus(x):
    return log(1 + exp(x))


def logistic(x):
    return 1 / (1 + exp(-x))


def between(x, low, high, inside):
    return Piecewise((0, x < low), (inside, x < high), (0, True))


def gelu(x, approximate="none"):
    if approximate == "none":
        return x * erfc(-x / sqrt(2)) / 2
    return x / 2 * (1 + tanh(sqrt(2 / pi) * (x + Rational("0.044715") * x**3)))


def selu(x):
    scale, alpha = Rational("1.0507009873554804934193349852946"), Rational("1.6732632423543772848170429916717")
    return Piecewise((scale * x, x > 0), (scale * alpha * (exp(x) - 1), True))


#: φ of a symbol, by the formulas in the README.
FORMULAS = {
    "sigmoid": logistic,
    "tanh": lambda x: (exp(x) - exp(-x)) / (exp(x) + exp(-x)),
    "logsigmoid": lambda x: -log(1 + exp(-x)),
    "softsign": lambda x: Piecewise((x / (1 + x), x > 0), (x / (1 - x), True)),
    "hardtanh": lambda x, min_val, max_val: Piecewise((min_val, x < min_val), (max_val, x > max_val), (x, True)),
    "hardsigmoid": lambda x: Piecewise((0, x < -3), (1, x > 3), ((x + 3) / 6, True)),
    "relu": lambda x: Piecewise((x, x > 0), (0, True)),
    "relu6": lambda x: Piecewise((0, x < 0), (6, x > 6), (x, True)),
    "leaky_relu": lambda x, negative_slope: Piecewise((x, x > 0), (negative_slope * x, True)),
    "prelu": lambda x, weight: Piecewise((x, x > 0), (weight * x, True)),
    "rrelu": lambda x, lower, upper: Piecewise((x, x > 0), ((lower + upper) / 2 * x, True)),
    "threshold": lambda x, threshold, value: Piecewise((x, x > threshold), (value, True)),
    "squared_relu": lambda x: Piecewise((x**2, x > 0), (0, True)),
    "elu": lambda x, alpha: Piecewise((x, x > 0), (alpha * (exp(x) - 1), True)),
    "selu": selu,
    "celu": lambda x, alpha: Piecewise((x, x > 0), (alpha * (exp(x / alpha) - 1), True)),
    "softplus": lambda x, beta, threshold: Piecewise((x, beta * x > threshold), (softplus(beta * x) / beta, True)),
    "silu": lambda x: x * logistic(x),
    "swish": lambda x, beta: x * logistic(beta * x),
    "quick_gelu": lambda x: x * logistic(Rational("1.702") * x),
    "gelu": gelu,
    "gelu_tanh": lambda x: gelu(x, "tanh"),
    "mish": lambda x: x * tanh(softplus(x)),
    "hardswish": lambda x: Piecewise((0, x < -3), (x, x > 3), (x * (x + 3) / 6, True)),
    "tanhshrink": lambda x: x - tanh(x),
    "softshrink": lambda x, lambd: Piecewise((x - lambd, x > lambd), (x + lambd, x < -lambd), (0, True)),
    "hardshrink": lambda x, lambd: Piecewise((x, x > lambd), (x, x < -lambd), (0, True)),
    "gaussian": lambda x: exp(-(x**2)),
    "sine": lambda x, omega: sin(omega * x),
    "snake": lambda x, alpha: x + sin(alpha * x) ** 2 / alpha,
    "binary_step": lambda x, surrogate: Piecewise((1, x >= 0), (0, True)),
    "identity": lambda x: x,
    "glu": lambda v, g: v * logistic(g),
    "reglu": lambda v, g: v * Piecewise((g, g > 0), (0, True)),
    "geglu": lambda v, g, approximate: v * gelu(g, approximate),
    "swiglu": lambda v, g, alpha, limit, offset: (
        v * g * logistic(g)
        if limit is None
        else (Piecewise((-limit, v < -limit), (limit, v > limit), (v, True)) + offset)
        * (lambda g: g * logistic(alpha * g))(Piecewise((limit, g > limit), (g, True)))
    ),
    "bilinear": lambda v, g: v * g,
}

#: h' of each surrogate, which takes the place of the step's derivative.
SURROGATES = {
    None: lambda x: sympy.Integer(0),
    "straight_through": lambda x: sympy.Integer(1),
    "sigmoid": lambda x: logistic(x).diff(x),
    "atan": lambda x: 1 / (1 + (pi * x) ** 2),
    "fast_sigmoid": lambda x: Piecewise((1 / (1 + x) ** 2, x >= 0), (1 / (1 - x) ** 2, True)),
    "triangular": lambda x: Piecewise((0, x < -1), (1 + x, x < 0), (1 - x, x < 1), (0, True)),
}

#: The parameters of every record: the usual ones and what is worth measuring besides.
CASES = [
    pytest.param(record, {**record.parameters, **chosen}, id="-".join([key, *map(str, chosen.values())]))
    for key, record in CATALOGUE.items()
    for chosen in [{}, *VARIANTS.get(key, [])]
]
ELEMENTWISE = [case for case in CASES if case.values[0].elementwise]
GATED = [case for case in CASES if case.values[0].kind == "gated"]


def exact(parameters):
    """Return the parameters as SymPy's numbers, in all their binary digits."""
    return {name: Rational(value) if isinstance(value, float) else value for name, value in parameters.items()}


def _erfc(x):
    """Return erfc to 60 digits, if it is small; mpmath fails where the square of x is beyond a float."""
    if x < 0:
        return 2 - _erfc(-x)
    with mpmath.workdps(60):
        return mpmath.erfc(min(x, mpmath.mpf(10) ** 9))


@functools.cache
def compiled(expression, *symbols):
    return sympy.lambdify(symbols, expression, modules=[{"erfc": _erfc}, "mpmath"], cse=True)


def digits(x):
    """Return how many digits to compute with: at least 50 are left where 1 - tanh², 1 + tanh or x - tanh cancel."""
    if x == 0:
        return 60
    return 60 + int(min(abs(x), 9.6) ** 3 if abs(x) >= 1 else -4 * math.log10(abs(x)))


def tolerance(function, point, value, scale):
    """Return how far off float64 may be: 8 roundings of the result, and of each operand as far as they change it.

    The latter is what float64 cannot do better: in e^{-1.702 x} the product is rounded, in sin(30 x) the angle, and
    near a root of the derivative the terms that cancel. Below the smallest normal number there are fewer digits.
    """
    step = mpmath.mpf(10) ** -20
    change = sum(
        abs(function(*point[:i], point[i] * (1 + step), *point[i + 1 :]) - value) / step for i in range(len(point))
    )
    size = min(max(1, *map(abs, point)), 1000)
    return 8 * DOUBLE.eps * (max(abs(value), scale) + change) + DOUBLE.smallest_normal * size**3


def assert_is(reference, function, points, scale=0.0):
    """Assert that float64 numbers are the function's values at these points, tuples of operands.

    Args:
        reference: the numbers.
        function: in mpmath.
        points: the operands.
        scale: the magnitude of terms that cancel, for all points or each.
    """
    scales = torch.as_tensor(scale).expand(len(points)).tolist()
    for actual, point, terms in zip(reference.tolist(), points, scales, strict=True):
        with mpmath.workdps(max(map(digits, point))):
            numbers = tuple(map(mpmath.mpf, point))
            expected = function(*numbers)
            if abs(expected) > DOUBLE.max:
                assert actual == math.copysign(math.inf, expected), point
                continue
            error, greatest = abs(actual - expected), tolerance(function, numbers, expected, terms)
            assert error <= greatest, f"{point}: {actual!r}, not {mpmath.nstr(expected, 20)}, {float(error):.3g} off"


def spread():
    """Return numbers from 1e-300 to 1e300, most of them between 1e-4 and 1e3, of both signs."""
    powers = torch.tensor([-300, -200, -100, -50, -30, -20, -16, -12, -10, -8, -7, -6, -5, 4, 5, 8, 16, 50, 155, 300])
    far = 1.7 * 10.0 ** powers.double()
    middle = torch.logspace(-4, 3, 90, dtype=torch.float64)
    magnitude = torch.cat([far.clamp(max=1e300), middle, torch.tensor([37.2, 38.3, 708.1, 709.5], dtype=torch.float64)])
    return torch.cat([magnitude, -magnitude])


def near_roots(function):
    """Return numbers around those where the function changes its sign, of the first six in [-20, 20]."""
    grid = torch.linspace(-20, 20, 4001, dtype=torch.float64)
    y = function(grid)
    crossings = grid[:-1][y[:-1] * y[1:] < 0]
    low = crossings[crossings.abs().argsort()[:6]]
    high = low + 0.01
    rising = function(high) > function(low)
    for _ in range(60):
        middle = (low + high) / 2
        left = (function(middle) > 0) == rising
        low, high = torch.where(left, low, middle), torch.where(left, middle, high)
    return torch.cat([low * (1 + distance) for distance in (0.0, 1e-12, -1e-9, 1e-6, -1e-3, 0.03)])


@pytest.mark.parametrize(("record", "parameters"), ELEMENTWISE)
@pytest.mark.parametrize("order", [0, 1, 2])
def test_value_and_derivatives_are_those_of_the_formula(record, parameters, order):
    reference = functools.partial((record.value, record.derivative, record.second_derivative)[order], **parameters)
    if order and record.key == "binary_step":
        expression = sympy.diff(SURROGATES[parameters["surrogate"]](X), X, order - 1)
    else:
        expression = sympy.diff(FORMULAS[record.key](X, **exact(parameters)), X, order)
    x = torch.cat([spread(), near_roots(reference)])
    if record.key in ("sine", "snake"):
        x = x[x.abs() < 1e10]  # far out one angle is as good as another
    # That of a surrogate's derivative is autograd's, whose terms cancel.
    scale = 1.0 if order == 2 and record.key == "binary_step" else 0.0
    assert_is(reference(x), compiled(expression, X), [(number,) for number in x.tolist()], scale)


@pytest.mark.parametrize(("record", "parameters"), [case for case in ELEMENTWISE if case.values[0].key != "prelu"])
def test_what_the_function_computes_in_float64_is_as_exact(record, parameters):
    formula = FORMULAS[record.key](X, **exact(parameters))
    x = torch.cat([spread(), near_roots(functools.partial(record.derivative, **parameters))])
    if record.key in ("sine", "snake"):
        x = x[x.abs() < 1e10]
    value, grad = value_and_gradients(functools.partial(getattr(functional, record.key), **parameters), (x,))
    points = [(number,) for number in x.tolist()]
    assert_is(value, compiled(formula, X), points)
    if record.key != "binary_step":
        # Digits that the output has lost, where that is saved, cannot be had back: 1 - y² is as exact as y is beside 1.
        scale = 1.0 if record.saves == "output" else 0.0
        assert_is(grad, compiled(sympy.diff(formula, X), X), points, scale)


LEARNABLE = [record for record in CATALOGUE.values() if record.learnable]


@pytest.mark.parametrize("record", LEARNABLE, ids=lambda record: record.key)
@pytest.mark.parametrize("parameter", [0.75, -2.6, 1e-3, 40.0])
def test_the_derivatives_by_input_and_parameter_are_those_of_the_formula(record, parameter):
    formula = FORMULAS[record.key](X, P)
    x = spread()
    x = x[x.abs() < 1e140]  # x² is finite
    operands = x, torch.tensor(parameter, dtype=torch.float64)
    value, partials = record.pair.value(*operands), record.pair.partials(*operands)
    points = [(number, parameter) for number in x.tolist()]
    for reference, expression in zip((value, *partials), (formula, formula.diff(X), formula.diff(P)), strict=True):
        assert_is(reference, compiled(expression, X, P), points)


@pytest.mark.parametrize(("record", "parameters"), GATED)
def test_gated_units_and_both_derivatives_are_those_of_the_formula(record, parameters):
    own = {name: value for name, value in parameters.items() if name not in ("dim", "gate")}
    formula = FORMULAS[record.key](X, P, **exact(own))
    g = spread()[::2]
    g = g[g.abs() < 1e150]
    v = torch.tensor([0.3, -6.0, 9.0, 1e-9, -1e9], dtype=torch.float64).repeat(len(g))[: len(g)]
    points = list(zip(v.tolist(), g.tolist(), strict=True))
    packed = torch.stack([v, g])
    value = record.value(packed, **{**parameters, "dim": 0})[0]
    by_v, by_g = record.derivative(packed, **{**parameters, "dim": 0})
    by_g_twice = record.second_derivative(packed, **{**parameters, "dim": 0})[1]
    expressions = formula, formula.diff(X), formula.diff(P), formula.diff(P, 2)
    for reference, expression in zip((value, by_v, by_g), expressions[:3], strict=True):
        assert_is(reference, compiled(expression, X, P), points)
    assert_is(by_g_twice, compiled(expressions[3], X, P), points, scale=v.abs())  # autograd's, whose terms cancel


#: y_1 of three numbers, for each activation that normalises.
NORMALISED = {
    "softmax": lambda x, y, z: exp(x) / (exp(x) + exp(y) + exp(z)),
    "softmin": lambda x, y, z: exp(-x) / (exp(-x) + exp(-y) + exp(-z)),
    "log_softmax": lambda x, y, z: x - log(exp(x) + exp(y) + exp(z)),
    "softmax2d": lambda x, y, z: exp(x) / (exp(x) + exp(y) + exp(z)),
}


@pytest.mark.parametrize("key", NORMALISED)
@pytest.mark.parametrize("order", [0, 1, 2])
def test_normalised_rows_and_their_derivatives_are_those_of_the_formula(key, order):
    record, symbols = CATALOGUE[key], sympy.symbols("x y z")
    generator = torch.Generator().manual_seed(0)
    scale = 10.0 ** torch.arange(-6, 3).repeat_interleave(12)[:, None]
    rows = scale * torch.randn(len(scale), 3, dtype=torch.float64, generator=generator)
    reference = (record.value, record.derivative, record.second_derivative)[order]
    expression = NORMALISED[key](*symbols).diff(symbols[0], order)
    y = reference(rows.T[..., None] if key == "softmax2d" else rows.T, dim=-3 if key == "softmax2d" else 0)[0]
    # Near y = 1 its logarithm and 1 - y cancel: only where the output is saved are they used, which has lost as much.
    scale = 1.0 if order or key == "log_softmax" else 0.0
    assert_is(y.flatten(), compiled(expression, *symbols), [tuple(row) for row in rows.tolist()], scale)


@pytest.mark.parametrize("key", ["silu", "swish", "quick_gelu", "gelu", "gelu_tanh", "mish", "hardswish"])
def test_the_range_ends_at_the_minimum(key):
    record = CATALOGUE[key]
    formula = FORMULAS[key](X, **exact(record.parameters))
    with mpmath.workdps(50):
        where = mpmath.findroot(compiled(formula.diff(X), X), -1)
        minimum = compiled(formula, X)(where)
        assert abs(record.range[0] - minimum) <= DOUBLE.eps / 4, mpmath.nstr(minimum, 20)
