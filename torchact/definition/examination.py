"""What a definition's functions must satisfy; each check raises a ValueError that names the argument and the point."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchact.catalogue import TensorFunction
from torchact.definition.differentiation import by_autograd
from torchact.definition.features import GRID, TOLERANCE, scale_of

#: Far outside, where formulas overflow first; there only what is finite is compared.
_TAILS = torch.tensor([-1e4, -1e3, -256.0, 256.0, 1e3, 1e4], dtype=torch.float64, device="cpu")
#: Between the grid's points, so that no kink lies on it: at a kink a derivative is a convention.
_BETWEEN = torch.cat([GRID[:-1] + 1 / (64 * math.pi), _TAILS])
_STEPS = (1e-5, 1e-3)  # of central differences; rounding spoils the short one first, and jumps the long one
_PROBE = torch.tensor([-3.7, 2.3, -1.3, -0.4, 0.6, 1.7, 3.1, -0.9, 0.2, 5.3, -7.1, 0.8], device="cpu").double()


@dataclass(frozen=True)
class Sample:
    """A function with its parameters chosen, and what it is called in messages."""

    argument: str
    function: TensorFunction
    parameters: Mapping[str, Any]

    def __call__(self, x: Tensor, /) -> Tensor:
        try:
            with torch.no_grad():
                return self.function(x, **self.parameters)
        except Exception as error:
            raise ValueError(
                f"{self.argument}: expected a function of a tensor{_among(self.parameters)}; of a {_kind(x)} it raised "
                f"{type(error).__name__}: {error}"
            ) from error

    def __str__(self) -> str:
        return f"{self.argument}{_among(self.parameters)}"


class Formulas(NamedTuple):
    """φ, φ' and φ'' as a definition has them, with the names and usual values of their parameters."""

    usual: Mapping[str, Any]
    value: TensorFunction
    derivative: TensorFunction
    second_derivative: TensorFunction


def check(formulas: Formulas, given: Collection[str], kinks: Callable[..., Collection[float]]) -> None:
    """Raise unless φ is elementwise, without NaN, seen by autograd, and has the derivatives that are given.

    Derivatives are checked with the usual parameters and with other numbers and truth values, where ``value`` takes
    them; of a string, only the usual value is checked.

    Args:
        formulas: the functions, those that were not given as autograd has them.
        given: the arguments that were given, of ``derivative`` and ``second_derivative``.
        kinks: where φ or φ' jumps, with given parameters.
    """
    value = Sample("value", formulas.value, formulas.usual)
    check_elementwise(value)
    check_depends_on_input_alone(value)
    check_no_nan(value)
    check_no_nan(
        Sample("value, differentiated by autograd", by_autograd(value.function), value.parameters),
        "; torch.where passes on the overflow of the branch that it does not take, so clamp its argument",
    )
    for argument in given:
        sample = Sample(argument, getattr(formulas, argument), formulas.usual)
        check_elementwise(sample)
        check_no_nan(sample)
    for parameters in _choices(formulas):
        check_derivatives(formulas, given, parameters, kinks)


def check_derivatives(
    formulas: Formulas, given: Collection[str], parameters: Mapping[str, Any], kinks: Callable[..., Collection[float]]
) -> None:
    """Raise where φ' by autograd, or a derivative that was given, is wrong with these parameters."""
    first = by_autograd(formulas.value)
    check_seen_by_autograd(Sample("value", formulas.value, parameters))
    expected = Sample("φ' by autograd of value", first, parameters)
    expected_second = Sample("φ'' by autograd of value", by_autograd(first), parameters)
    if "derivative" in given:
        stated = Sample("derivative", formulas.derivative, parameters)
        check_same(stated, expected)
        check_same(stated, expected, GRID, except_at=kinks(**parameters))
        check_same(
            replace(stated, function=by_autograd(stated.function), argument="derivative, differentiated by autograd"),
            expected_second,
        )
    if "second_derivative" in given:
        check_same(Sample("second_derivative", formulas.second_derivative, parameters), expected_second)


def _choices(formulas: Formulas) -> list[Mapping[str, Any]]:
    """Return the parameters to check: the usual ones, other numbers, and with these other truth values."""
    usual = formulas.usual
    other_numbers = _changed(
        formulas.value,
        usual,
        {
            name: 1.125 * value + 0.0625 if isinstance(value, float) else value + 1
            for name, value in usual.items()
            if isinstance(value, (int, float)) and not isinstance(value, bool)
        },
    )
    flipped = {name: not value for name, value in usual.items() if isinstance(value, bool)}
    choices: list[Mapping[str, Any]] = [usual]
    for choice in (other_numbers, _changed(formulas.value, other_numbers, flipped)):
        if choice not in choices:
            choices.append(choice)
    return choices


def _changed(value: TensorFunction, usual: Mapping[str, Any], others: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the parameters with each of ``others`` that ``value`` takes without an error or NaN."""
    changed = dict(usual)
    for name, other in others.items():
        sample = Sample("value", value, {**changed, name: other})
        try:
            check_elementwise(sample)
            check_no_nan(sample)
        except ValueError:
            continue
        changed[name] = other
    return changed


def check_depends_on_input_alone(value: Sample) -> None:
    """Raise where autograd would have a gradient for a tensor that is neither the input nor a parameter."""

    @torch.enable_grad()
    def requires_grad(x: Tensor, **parameters: Any) -> Tensor:
        return torch.tensor(value.function(x, **parameters).requires_grad)

    if bool(replace(value, function=requires_grad)(_PROBE)):
        raise ValueError(f"{value}: it depends on a tensor that requires grad; make that a parameter")


def check_seen_by_autograd(value: Sample) -> None:
    """Raise where φ' by autograd is not what differences of φ give.

    Beside the derivative, the error may be as large as the one-sided differences are apart (a kink or a jump is near),
    as the difference changes with the step (it is too long) and as rounding explains.
    """
    x = _BETWEEN[_BETWEEN.abs() <= 100]
    derivative = replace(value, function=by_autograd(value.function))
    slope, at_x, scale = derivative(x), value(x), scale_of(derivative(GRID))
    size = at_x.abs() + scale_of(value(GRID))
    excess, differences = torch.full_like(x, math.inf), torch.zeros_like(x)
    for step in _STEPS:
        left, right = x - step, x + step
        at_left, at_right = value(left), value(right)
        central = (at_right - at_left) / (right - left)
        twice = (value(x + 2 * step) - value(x - 2 * step)) / ((x + 2 * step) - (x - 2 * step))
        kinked = ((at_right - at_x) / (right - x) - (at_x - at_left) / (x - left)).abs()
        rounding = 8 * torch.finfo(x.dtype).eps * size / step
        allowed = 1e-4 * (central.abs() + scale) + kinked + (central - twice).abs() + rounding
        ratio = (slope - central).abs() / allowed.clamp(min=torch.finfo(x.dtype).smallest_normal)
        ratio = torch.where(slope.isfinite() & allowed.isfinite(), ratio, 0.0)
        differences = torch.where(ratio < excess, central, differences)
        excess = excess.minimum(ratio)
    if float(excess.max()) > 1:
        worst = int(torch.where(excess > 1, (slope - differences).abs(), -1.0).argmax())
        raise ValueError(
            f"{value}: autograd does not see all of it; at x = {float(x[worst]):.6g} its derivative by autograd is "
            f"{float(slope[worst]):.9g}, but differences give {float(differences[worst]):.6g}"
        )


def check_elementwise(sample: Sample) -> None:
    """Raise unless the result has the input's shape and dtype, is a new tensor, and each entry is a function of one."""
    for dtype in (torch.float64, torch.float32):
        _check_result(sample, _PROBE.to(dtype))
        _check_result(sample, _PROBE.to(dtype).reshape(3, 4))
    alone = torch.cat([sample(x.reshape(1)) for x in _PROBE])
    together = sample(_PROBE)
    differs = ~torch.isclose(together, alone, rtol=TOLERANCE, atol=0, equal_nan=True)
    if bool(differs.any()):
        place = int(differs.nonzero()[0])
        raise ValueError(
            f"{sample.argument}: expected an elementwise function, whose every result depends on one entry; at "
            f"x = {float(_PROBE[place]):g} it gives {float(alone[place]):.9g} alone and {float(together[place]):.9g} "
            f"among {len(_PROBE)} others"
        )


def _check_result(sample: Sample, x: Tensor) -> None:
    before = x.clone()
    y = sample(x)
    if not isinstance(y, Tensor) or y.shape != x.shape or y.dtype != x.dtype or y.device != x.device:
        result = f"a {_kind(y)}" if isinstance(y, Tensor) else repr(y)
        raise ValueError(f"{sample.argument}: expected a tensor like its input, of a {_kind(x)} it returned {result}")
    if not torch.equal(x, before):
        raise ValueError(f"{sample.argument}: expected its input unchanged; it writes into it")
    if sample.argument == "value" and y.untyped_storage().data_ptr() == x.untyped_storage().data_ptr():
        raise ValueError(f"{sample.argument}: expected a new tensor, it returned its input; x.clone() is a new one")


def check_no_nan(sample: Sample, explanation: str = "") -> None:
    """Raise where a function gives NaN at an ordinary number: within ±100, in float64 or float32."""
    for dtype in (torch.float64, torch.float32):
        nan = sample(GRID.to(dtype)).isnan()
        if bool(nan.any()):
            worst = GRID[nan][GRID[nan].abs().argmin()]  # the one nearest to 0
            raise ValueError(
                f"{sample}: expected a number at every x from -100 to 100, got NaN at x = {float(worst):g} "
                f"in {str(dtype).removeprefix('torch.')}{explanation}"
            )


def check_same(stated: Sample, expected: Sample, grid: Tensor = _BETWEEN, except_at: Collection[float] = ()) -> None:
    """Raise where two functions differ by more than rounding. Beyond ±100 only what is finite is compared.

    Args:
        stated: what the user gave.
        expected: what autograd makes of it.
        grid: where to look.
        except_at: where neither is more right than the other.
    """
    given, known = stated(grid), expected(grid)
    scale = scale_of(expected(GRID))
    error = (given - known).abs().nan_to_num(nan=math.inf)
    excess = error / (TOLERANCE * (known.abs() + scale)).clamp(min=torch.finfo(grid.dtype).smallest_normal)
    compared = known.isfinite() & (given.isfinite() | (grid.abs() <= 100))
    compared &= ~torch.isin(grid, torch.tensor([*except_at], dtype=grid.dtype, device="cpu"))
    excess = torch.where(compared, excess, 0.0)
    if float(excess.max()) > 1:
        worst = int(torch.where(excess >= excess.max() / 2, grid.abs(), math.inf).argmin())  # of these nearest to 0
        raise ValueError(
            f"{stated}: at x = {float(grid[worst]):.6g} it gives {float(given[worst]):.9g}, but {expected.argument} is "
            f"{float(known[worst]):.9g}"
        )


def _kind(x: Tensor) -> str:
    return f"{str(x.dtype).removeprefix('torch.')} tensor of shape {tuple(x.shape)}"


def _among(parameters: Mapping[str, Any]) -> str:
    return f" with {', '.join(f'{name}={value!r}' for name, value in parameters.items())}" if parameters else ""
