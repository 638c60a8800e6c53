"""Mean-field theory of a wide, fully connected network at initialisation.

In z^l = W^l φ(z^(l-1)) + b^l with independent weights of variance σ_w²/fan_in and biases of variance σ_b², as the width
grows, every pre-activation becomes N(0, q^l), and the gradient δ^l = ∂L/∂z^l fades or grows by a known factor a layer::

    q^l      = σ_w² E[φ(√q^(l-1) z)²] + σ_b²,   z ~ N(0, 1)        the variance map
    χ(q)     = σ_w² E[φ'(√q z)²]
    ‖δ^l‖²   = χ(q^l) ‖δ^(l+1)‖²

χ < 1 is the ordered phase, where gradients vanish with depth, χ > 1 the chaotic one, where they explode, and χ = 1 the
critical line between them. q is a mean square and σ_w², σ_b² and χ are ratios, so nothing here has a unit.

Every function takes an activation by its name or record in the catalogue, as a module, or as any elementwise function
of a tensor; :func:`nonlinearity` gives it parameters, kinks or a period. All arithmetic is in float64. RReLU has its
mean slope, as in evaluation; the slopes that it draws in training add σ_w²(upper − lower)²/24 to χ.

Sources: Poole et al. 2016, arXiv:1606.05340 (the variance map, χ and the phases); Schoenholz et al. 2017,
arXiv:1611.01232 (gradients and depth scales); Hayou et al. 2019, arXiv:1902.06853 (the critical line of any
activation). For one layer and one activation the same factors are in Glorot and Bengio 2010 and He et al. 2015,
arXiv:1502.01852.

Example:
    >>> from torchact import initialisations, theory
    >>> layers = initialisations.get("xavier").layers([1024] * 31)
    >>> round(theory.profile("relu", layers).ratio_per_layer, 6)
    0.707107
    >>> round(theory.profile(torch.nn.functional.gelu, layers).ratio_per_layer, 4)
    0.5129
"""

from __future__ import annotations

import functools
import itertools
import math
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from torchact import catalogue, modules

_TAIL = 12.0  # in standard deviations: 4e-33 of a Gaussian lies beyond
_NODES = 64  # a piece: every piece is then exact to rounding, see _edges
_ROUNDING = 1e-12  # a relative difference of two expectations below this is not told from zero
_LARGEST_Q = 2.0**256  # the square of the largest float32, beyond which no network computes
_UNIFORM = 9.0  # radians: a phase that is N(0, 9²) is as good as uniform, the mean of its cosine exp(-81/2) = 3e-18
_PHASES = 256  # in a period: the mean of a smooth wave over them is exact to rounding

#: The periods of the waves' derivatives; a frequency of 0 makes no wave.
_PERIODS: Mapping[str, Callable[..., float]] = MappingProxyType(
    {
        "sine": lambda omega: 2 * math.pi / abs(omega) if omega else math.inf,
        "snake": lambda alpha: math.pi / abs(alpha) if alpha else math.inf,
    }
)


@dataclass(frozen=True)
class Nonlinearity:
    """What the theory needs of an activation: φ, φ', where either of them jumps, and the period of φ' if it has one."""

    value: Callable[[Tensor], Tensor]
    derivative: Callable[[Tensor], Tensor]
    kinks: tuple[float, ...] = ()
    period: float = math.inf

    def has_uniform_phase(self, q: float) -> bool:
        """Whether N(0, q) spreads over so many periods that every phase is as probable as any other."""
        return 2 * math.pi * math.sqrt(q) > _UNIFORM * self.period

    def breaks(self, q: float) -> tuple[float, ...]:
        """Return where the pieces of a quadrature over N(0, q) meet: at the kinks and after every period."""
        periods = 0 if math.isinf(self.period) else math.ceil(_TAIL * math.sqrt(q) / self.period)
        return (*self.kinks, *(self.period * count for count in range(-periods, periods + 1) if count))


ActivationLike: TypeAlias = str | catalogue.Activation | Nonlinearity | Callable[[Tensor], Tensor]


def nonlinearity(
    activation: ActivationLike, *, kinks: Iterable[float] = (), period: float | None = None, **parameters: Any
) -> Nonlinearity:
    """Return what the theory needs of ``activation``.

    Args:
        activation: a name or a record of the catalogue, a module, or a function applied elementwise to a tensor, whose
            derivative is then taken by ``torch.func``.
        kinks: where φ or φ' jumps, besides 0 and what is known of an activation of the catalogue.
        period: of φ', where that is a smooth wave, as of a sine; known of the catalogue's.
        **parameters: keyword parameters of the activation, such as ``negative_slope``; a module brings its own. A
            learnt one, such as ``weight``, is a number or a tensor with one entry.

    Raises:
        ValueError: ``activation`` is unknown, or not elementwise, like softmax, or has a learnt parameter with several
            entries.
        TypeError: ``activation`` is none of the above or does not take ``parameters``.

    Example:
        >>> round(chi(nonlinearity("leaky_relu", negative_slope=0.5), 1.0, weight_variance=1.0), 12)
        0.625
        >>> relu6 = nonlinearity(torch.nn.functional.relu6, kinks=(6.0,))
        >>> round(second_moment(relu6, 100.0), 6)
        12.454324
    """
    if isinstance(activation, str):
        activation = catalogue.get(activation)
    if isinstance(activation, catalogue.Activation):
        # The module checks the parameters and settles their spelling; what can be learnt it takes under another name.
        learnt = {name: value for name, value in parameters.items() if name == activation.learnable}
        others = {name: value for name, value in parameters.items() if name not in learnt}
        activation, parameters = modules.create(activation.key, **others), learnt
    if isinstance(activation, nn.Module) and (record := modules.activation_of(activation)) is not None:
        known = _of_record(record, {**record.parameters_of(activation), **parameters})
    elif isinstance(activation, Nonlinearity):
        value, derivative = (functools.partial(f, **parameters) for f in (activation.value, activation.derivative))
        known = replace(activation, value=value, derivative=derivative)
    elif callable(activation):
        known = _differentiated(functools.partial(activation, **parameters) if parameters else activation)
    else:
        raise TypeError(f"activation: expected a name, a record, a module or a function, got {activation!r}")
    if period is not None and not period > 0:
        raise ValueError(f"period: expected a positive number, got {period!r}")
    return replace(known, kinks=(*known.kinks, *kinks), period=known.period if period is None else period)


def gaussian_expectation(function: Callable[[Tensor], Tensor], q: float, kinks: Collection[float] = ()) -> float:
    """Return E[f(√q z)] for z ~ N(0, 1), in float64.

    Gauss-Legendre quadrature on pieces that meet at 0 and at every kink; one Gauss-Hermite rule across a kink is 9 %
    wrong. Exact to rounding for an f that is smooth on the scale of 1 between its kinks, turns within a few units of 0
    and grows at most like a polynomial.

    Args:
        function: f, from a float64 tensor of shape (m,) to one of the same shape.
        q: the variance of its argument; at 0 the result is f(0), at infinity the limit.
        kinks: where f jumps or bends.

    Raises:
        ValueError: ``q`` is negative or not a number.

    Example:
        >>> round(gaussian_expectation(torch.abs, 4.0) / (2 * math.sqrt(2 / math.pi)), 12)
        1.0
    """
    _require_nonnegative(q=q)
    if q == 0:
        return float(function(torch.zeros(1, dtype=torch.float64, device="cpu")))
    scale = math.sqrt(min(q, sys.float_info.max))
    edges = torch.tensor(_edges(scale, kinks), dtype=torch.float64, device="cpu")
    nodes, weights = _gauss_legendre(_NODES)
    half_widths = (edges.diff() / 2).unsqueeze(1)
    z = (edges[:-1].unsqueeze(1) + half_widths * (1 + nodes)).flatten()
    masses = (half_widths * weights).flatten() * torch.exp(-z * z / 2)
    with torch.no_grad():
        return float(torch.dot(function(scale * z), masses / masses.sum()))


def second_moment(activation: ActivationLike, q: float) -> float:
    """Return E[φ(√q z)²], the mean square of the activation's output where its input is N(0, q).

    Raises:
        ValueError: ``q`` is negative, or ``activation`` has no mean-field theory (see :func:`nonlinearity`).

    Example:
        >>> round(second_moment("tanh", 1.0), 8)
        0.39429449
    """
    _require_nonnegative(q=q)
    phi = nonlinearity(activation)
    if not phi.has_uniform_phase(q):
        return gaussian_expectation(lambda x: phi.value(x).square(), q, phi.breaks(q))
    drift, wave = _line_and_wave(phi)  # between which there is no correlation
    return (drift * drift * q if drift else 0.0) + float(wave.square().mean())


def mean_square_derivative(activation: ActivationLike, q: float) -> float:
    """Return E[φ'(√q z)²] for z ~ N(0, 1).

    At q = 0 it is the limit q → 0⁺, in which both sides of a kink at 0 count; torch's φ'(0) is that of one side.

    Raises:
        ValueError: ``q`` is negative, or ``activation`` has no mean-field theory (see :func:`nonlinearity`).

    Example:
        >>> round(mean_square_derivative("tanh", 1.0), 8)
        0.4644029
    """
    _require_nonnegative(q=q)
    phi = nonlinearity(activation)
    if phi.has_uniform_phase(q):
        return float(phi.derivative(_one_period(phi)).square().mean())
    return gaussian_expectation(lambda x: phi.derivative(x).square(), max(q, sys.float_info.min), phi.breaks(q))


def variance_map(activation: ActivationLike, q: float, weight_variance: float, bias_variance: float = 0.0) -> float:
    """Return σ_w² E[φ(√q z)²] + σ_b², the variance of the next layer's pre-activations (Poole et al. 2016).

    Args:
        activation: φ.
        q: the variance of this layer's pre-activations.
        weight_variance: σ_w² = fan_in · Var[W] of the next layer.
        bias_variance: σ_b² = Var[b] of the next layer.

    Raises:
        ValueError: a variance is negative, or ``activation`` has no mean-field theory.

    Example:
        >>> round(variance_map("relu", 3.0, weight_variance=2.0, bias_variance=0.5), 12)
        3.5
    """
    _require_nonnegative(weight_variance=weight_variance, bias_variance=bias_variance)
    return weight_variance * second_moment(activation, q) + bias_variance


def chi(activation: ActivationLike, q: float, weight_variance: float) -> float:
    """Return χ(q) = σ_w² E[φ'(√q z)²], by which a layer multiplies ‖δ‖² on the way back (Schoenholz et al. 2017).

    Closed forms: σ_w² for the identity, σ_w²/2 for ReLU, σ_w²(1 + a²)/2 for leaky ReLU of slope a, and 0 for the binary
    step, unless it has a surrogate: then the surrogate's derivative counts.

    Args:
        activation: φ.
        q: the variance of the pre-activations.
        weight_variance: σ_w² = fan_in · Var[W] of the next layer, through which the gradient comes.

    Raises:
        ValueError: ``q`` or ``weight_variance`` is negative, or ``activation`` has no mean-field theory.

    Example:
        >>> round(chi("relu", q=7.0, weight_variance=2.0), 12)
        1.0
        >>> chi("binary_step", q=7.0, weight_variance=2.0)
        0.0
    """
    _require_nonnegative(weight_variance=weight_variance)
    return weight_variance * mean_square_derivative(activation, q)


@dataclass(frozen=True)
class Profile:
    """Signal and gradient of an L-layer network, layer by layer."""

    q: tuple[float, ...]  #: q^l for l = 1 … L, the variance of the pre-activations
    chi: tuple[float, ...]  #: χ^l for l = 1 … L − 1: ‖δ^l‖² = χ^l ‖δ^(l+1)‖²

    @property
    def gradient_norms(self) -> tuple[float, ...]:
        """‖δ^l‖ / ‖δ^L‖ for l = 1 … L, of root mean squares over samples: the product of √χ^k over k = l … L − 1."""
        factors = (math.sqrt(factor) for factor in reversed(self.chi))
        return tuple(itertools.accumulate(factors, lambda norm, factor: norm * factor, initial=1.0))[::-1]

    @property
    def ratio_per_layer(self) -> float:
        """(‖δ^1‖ / ‖δ^L‖)^(1/(L − 1)), the geometric mean of √χ^l over l = 1 … L − 1; 1 for a single layer."""
        return math.prod(factor ** (0.5 / len(self.chi)) for factor in self.chi)

    def layers_above(self, floor: float) -> int:
        """Return how many layers, the last one included, the gradient passes before ‖δ^l‖ / ‖δ^L‖ is below ``floor``.

        A float32 sum of squares is zero below a norm of about 1e-23, a float32 gradient itself below 1e-45.

        Example:
            >>> profile("sigmoid", [(1 / 3, 0.0)] * 30).layers_above(1e-23)
            28
        """
        return sum(1 for _ in itertools.takewhile(lambda norm: norm >= floor, reversed(self.gradient_norms)))


def profile(
    activation: ActivationLike, layers: Sequence[tuple[float, float]], input_mean_square: float = 1.0
) -> Profile:
    """Predict the signal and the gradient in every layer of a network of given depth.

    It iterates the variance map from the input, so it holds for a shallow network too, which has not come to the
    map's fixed point: for tanh with σ_w² = 1 at 30 layers the fixed point's √χ is 6 % a layer away.

    Args:
        activation: φ, the same in every layer.
        layers: (σ_w², σ_b²) of each layer from the first, as :meth:`torchact.initialisations.Initialisation.layers`
            gives them.
        input_mean_square: the mean square of the network's inputs, 1 for N(0, 1), so that q^1 = σ_w² q^0 + σ_b².

    Raises:
        ValueError: there is no layer, a variance is negative, or ``activation`` has no mean-field theory.

    Example:
        >>> tanh = profile("tanh", [(2.0, 0.0)] * 3)
        >>> [round(q, 4) for q in tanh.q], [round(norm, 4) for norm in tanh.gradient_norms]
        ([2.0, 1.04, 0.8028], [0.7997, 0.9565, 1.0])
    """
    if not layers:
        raise ValueError("layers: expected (σ_w², σ_b²) of at least one layer, got none")
    phi = nonlinearity(activation)
    (weight_variance, bias_variance), *later = layers
    _require_nonnegative(
        input_mean_square=input_mean_square, weight_variance=weight_variance, bias_variance=bias_variance
    )
    q = [weight_variance * input_mean_square + bias_variance]
    for weight_variance, bias_variance in later:
        q.append(variance_map(phi, q[-1], weight_variance, bias_variance))
    return Profile(tuple(q), tuple(chi(phi, q_l, weight) for q_l, (weight, _) in zip(q[:-1], later, strict=True)))


def fixed_point(
    activation: ActivationLike, weight_variance: float, bias_variance: float = 0.0, start: float = 1.0
) -> float:
    """Return q* = σ_w² E[φ(√q* z)²] + σ_b², where the variance map goes from ``start`` as the depth grows.

    Searches in the direction in which the map moves ``start``, so it presumes that the map never falls as q grows. That
    is so for the sigmoid, for the step and for every monotone activation with φ(0) = 0.

    Args:
        activation: φ.
        weight_variance: σ_w².
        bias_variance: σ_b².
        start: a positive q. ReLU with σ_w² = 2 and no bias keeps every q as it is, so there q* = ``start``.

    Returns:
        q*, which is 0.0 where the signal dies out and ``math.inf`` where it grows without bound.

    Raises:
        ValueError: ``start`` is not positive and finite, a variance is negative, or ``activation`` has no mean-field
            theory.

    Example:
        >>> round(fixed_point("tanh", weight_variance=1.76, bias_variance=0.05), 4)
        0.5695
        >>> fixed_point("relu", weight_variance=1.0), fixed_point("identity", weight_variance=2.0)
        (0.0, inf)
    """
    if not 0 < start < math.inf:
        raise ValueError(f"start: expected a positive, finite q, got {start!r}")
    phi = nonlinearity(activation)

    def growth(q: float) -> float:
        return variance_map(phi, q, weight_variance, bias_variance) / q - 1

    if abs(growth(start)) < _ROUNDING:
        return start
    direction = math.copysign(1.0, growth(start))
    near, far = start, start * 4**direction
    while direction * growth(far) > -_ROUNDING:
        if not 1 / _LARGEST_Q < far < _LARGEST_Q:
            return math.inf if direction > 0 else 0.0
        near, far = far, far * 4**direction
    return _bisect(lambda q: direction * growth(q), near, far)


def critical_weight_variance(activation: ActivationLike, bias_variance: float = 0.0) -> float:
    """Return the σ_w² at which χ(q*) = 1, so that gradients neither vanish nor explode (the edge of chaos).

    χ(q) = 1 gives σ_w² = 1/E[φ'(√q z)²], and with it q = q* gives σ_b² = q − E[φ(√q z)²]/E[φ'(√q z)²], which is solved
    for the smallest q (Hayou et al. 2019). √σ_w² is the ``gain`` of ``torch.nn.init.xavier_normal_`` and
    ``orthogonal_`` for square layers: without bias, 1 for tanh and √2 for ReLU (He et al. 2015).

    q* is a fixed point of the variance map, but the map may lead away from it: for GELU it does so while σ_b² < 0.17,
    for SiLU while σ_b² < 0.56. :func:`fixed_point` tells.

    Args:
        activation: φ.
        bias_variance: σ_b².

    Raises:
        ValueError: no σ_w² is critical. ReLU, leaky ReLU and identity have one for σ_b² = 0 only; where φ'(0) = 0,
            as of the squared ReLU, there is none for σ_b² = 0; the binary step has none, for its χ is 0. Or
            ``bias_variance`` is negative, or ``activation`` has no mean-field theory.

    Example:
        >>> round(critical_weight_variance("tanh", bias_variance=0.05), 2)
        1.76
        >>> round(critical_weight_variance("relu"), 12)
        2.0
    """
    _require_nonnegative(bias_variance=bias_variance)
    phi = nonlinearity(activation)

    def excess(q: float) -> float:
        signal, slope = second_moment(phi, q), mean_square_derivative(phi, q)
        if signal == 0:  # at q = 0, or by underflow; where the slope is 0 too, no finite σ_w² is critical
            return q - bias_variance
        return q - signal / slope - bias_variance if slope > 0 else -math.inf

    powers = [2.0**exponent for exponent in range(-40, 40)]
    crossings = (
        (below, above) for below, above in itertools.pairwise([0.0, *powers]) if excess(above) > _ROUNDING * above
    )
    root = 0.0 if excess(0.0) == 0 else next((_bisect(excess, above, below) for below, above in crossings), None)
    slope = 0.0 if root is None else mean_square_derivative(phi, root)
    if slope > 1 / _LARGEST_Q:
        return 1 / slope
    raise ValueError(
        f"bias_variance: no weight variance is critical for {activation!r} with σ_b² = {bias_variance!r}; "
        "expected another σ_b², which must be 0 for a rectifier and positive for an activation that is flat at 0"
    )


def depth_scale(activation: ActivationLike, weight_variance: float, bias_variance: float = 0.0) -> float:
    """Return ξ = 1/|ln χ(q*)|, the number of layers over which ‖δ‖² changes by a factor e.

    It fades where χ(q*) < 1 and grows where χ(q*) > 1. A network trains if it has at most about 6ξ layers
    (Schoenholz et al. 2017).

    Returns:
        ξ in layers, which is ``math.inf`` at criticality and 0.0 where no gradient passes at all.

    Raises:
        ValueError: a variance is negative, or ``activation`` has no mean-field theory.

    Example:
        >>> round(depth_scale("tanh", weight_variance=1.0, bias_variance=0.05), 2)
        3.63
        >>> depth_scale("relu", weight_variance=2.0)
        inf
    """
    factor = chi(activation, fixed_point(activation, weight_variance, bias_variance), weight_variance)
    if factor in (0.0, math.inf):
        return 0.0
    return math.inf if abs(factor - 1) < _ROUNDING else 1 / abs(math.log(factor))


def _of_record(record: catalogue.Activation, parameters: Mapping[str, Any]) -> Nonlinearity:
    if not record.elementwise:
        raise ValueError(f"activation: expected an elementwise one, got {record.key!r}, which mixes its inputs")
    numbers = {name: _number(name, value) for name, value in parameters.items()}
    value, derivative = (functools.partial(f, **numbers) for f in (record.value, record.derivative))
    period = _PERIODS[record.key](**numbers) if record.key in _PERIODS else math.inf
    return Nonlinearity(value, derivative, record.kinks_with(**numbers), period)


def _number(name: str, value: Any) -> Any:
    """Return a parameter, and of a learnt one its only entry."""
    if not isinstance(value, Tensor):
        return value
    if value.numel() != 1:
        raise ValueError(
            f"{name}: expected a number or a tensor with one entry, since all units share one theory, "
            f"got a tensor of shape {tuple(value.shape)}"
        )
    return value.item()


def _differentiated(function: Callable[[Tensor], Tensor]) -> Nonlinearity:
    probe = torch.tensor([-1.0, -0.5, 0.5, 2.0], dtype=torch.float64, device="cpu")
    with torch.no_grad():
        values = function(probe)
        if values.shape != probe.shape or not torch.allclose(values[:2], function(probe[:2])):
            raise ValueError(f"activation: expected an elementwise function, got {function!r}, which mixes its inputs")
    return Nonlinearity(function, torch.func.vmap(torch.func.grad(function)))


def _one_period(phi: Nonlinearity) -> Tensor:
    return phi.period * torch.arange(_PHASES, dtype=torch.float64, device="cpu") / _PHASES


def _line_and_wave(phi: Nonlinearity) -> tuple[float, Tensor]:
    """Return the slope of the line that φ waves about, and what is left of φ in one period."""
    x = _one_period(phi)
    values = phi.value(x)
    rise = float(phi.value(x[:1] + phi.period) - values[0])
    drift = rise / phi.period if abs(rise) > _ROUNDING * float(values.abs().max()) else 0.0
    return drift, values - drift * x


def _require_nonnegative(**values: float) -> None:
    for argument, value in values.items():
        if not value >= 0:
            raise ValueError(f"{argument}: expected a number ≥ 0, got {value!r}")


def _edges(scale: float, kinks: Collection[float]) -> list[float]:
    """Return where the pieces of [-12, 12] meet, in units of the standard deviation ``scale``.

    Besides 0 and the kinks these are the arguments ±1, ±4, ±16 …: an activation turns within a few units of 0, and
    where ``scale`` is large a uniform grid would step over that.
    """
    reach = _TAIL * scale
    powers = list(itertools.takewhile(lambda x: x < reach, (4.0**exponent for exponent in itertools.count())))
    arguments = {0.0, *powers, *(-power for power in powers), *kinks}
    return sorted({-_TAIL, _TAIL, *(x / scale for x in arguments if abs(x) < reach)})


@functools.lru_cache(maxsize=4)
def _gauss_legendre(count: int) -> tuple[Tensor, Tensor]:
    """Return nodes and weights on [-1, 1], from the Jacobi matrix (Golub and Welsch 1969, doi:10.2307/2004418)."""
    k = torch.arange(1, count, dtype=torch.float64, device="cpu")
    nodes, vectors = torch.linalg.eigh(torch.diag(k / torch.sqrt(4 * k * k - 1), -1))
    return nodes, 2 * vectors[0].square()


def _bisect(function: Callable[[float], float], nonnegative: float, negative: float) -> float:
    """Return the root of ``function`` between an argument where it is ≥ 0 and one where it is < 0, in either order."""
    while True:
        middle = (nonnegative + negative) / 2
        if middle in (nonnegative, negative):
            return middle
        if function(middle) >= 0:
            nonnegative = middle
        else:
            negative = middle
