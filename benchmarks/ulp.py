"""Errors in units in the last place, and the inputs to look for them at."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

_INTEGER = {
    torch.bfloat16: torch.int16,
    torch.float16: torch.int16,
    torch.float32: torch.int32,
    torch.float64: torch.int64,
}
_CHUNK = 2**16  # the float64 reference of so many numbers stays in the caches


def ulp(expected: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the spacing of ``dtype`` at each float64 number: that of its binade, or of the subnormal numbers."""
    info = torch.finfo(dtype)
    binade = (expected.view(torch.int64) & 0x7FF0_0000_0000_0000).view(torch.float64)
    return binade.clamp_(info.smallest_normal, info.max / (2 - info.eps)).mul_(info.eps)


def error_in_ulp(actual: Tensor, expected: Tensor, unit: Tensor | None = None) -> Tensor:
    """Return how far each number is from its float64 reference, in ULP of the reference; NaN where either is NaN.

    Infinity counts as the number that would follow the greatest one, as it does where a result is rounded.

    Args:
        actual: narrower than float64.
        expected: in float64.
        unit: what to count in, by default the ULP of ``expected``.
    """
    info = torch.finfo(actual.dtype)
    infinity = 2 * info.max / (2 - info.eps)
    expected = expected.clamp(-infinity, infinity)
    error = actual.double().clamp_(-infinity, infinity).sub_(expected).abs_()
    return error.div_(ulp(expected, actual.dtype) if unit is None else unit)


def _greatest_pattern(dtype: torch.dtype) -> int:
    """Return the bits of the greatest finite number: those of the others of its sign are all numbers from 0 to it."""
    return int(torch.tensor(torch.finfo(dtype).max, dtype=dtype).view(_INTEGER[dtype]))


def inputs(dtype: torch.dtype, count: int) -> Iterator[Tensor]:
    """Yield finite numbers in chunks, ±0 and ± the greatest among them.

    They are all there are or, if that is more than ``count``, so many: the bit patterns of half of them are evenly
    spread over all, so that every exponent has the same share, and the others lie anywhere between -16 and 16, where
    functions bend, the same at every call.
    """
    greatest = _greatest_pattern(dtype)
    all_of_them = 2 * (greatest + 1) <= count
    half = greatest + 1 if all_of_them else count // 4
    step, rest = divmod(greatest, half - 1)
    for start in range(0, half, _CHUNK // 2):
        index = torch.arange(start, min(start + _CHUNK // 2, half))
        magnitude = (index * step + index * rest // (half - 1)).to(_INTEGER[dtype]).view(dtype)
        yield torch.cat([magnitude, -magnitude])
    generator = torch.Generator().manual_seed(0)
    for start in range(0, 0 if all_of_them else count // 2, _CHUNK):
        yield _between(-16, 16, (min(_CHUNK, count // 2 - start),), generator).to(dtype)


def _between(low: float, high: float, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Return random numbers in float64, so that they have all the digits of a narrower type."""
    return torch.rand(shape, generator=generator, dtype=torch.float64) * (high - low) + low


def random_pairs(dtype: torch.dtype, count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield pairs of finite numbers in chunks, the same at every call.

    Half of them have random signs and bit patterns, the others lie anywhere between -16 and 16.
    """
    generator = torch.Generator().manual_seed(0)
    for start in range(0, count // 2, _CHUNK):
        size = 2, min(_CHUNK, count // 2 - start)
        pattern = torch.randint(_greatest_pattern(dtype) + 1, size, generator=generator).to(_INTEGER[dtype])
        sign = torch.randint(2, size, generator=generator) * 2 - 1
        first, second = pattern.view(dtype) * sign
        yield first, second
        first, second = _between(-16, 16, size, generator).to(dtype)
        yield first, second


def random_rows(dtype: torch.dtype, count: int, length: int = 8) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield rows of normal numbers times 2^-20 to 2^10, a power for each, and as many eighths between -4 and 4."""
    generator = torch.Generator().manual_seed(0)
    for start in range(0, count, _CHUNK // length):
        size = min(_CHUNK // length, count - start), length
        scale = torch.exp2(torch.rand(size[0], 1, generator=generator) * 30 - 20)
        eighths = torch.randint(-32, 33, size, generator=generator) / 8
        yield (scale * torch.randn(size, generator=generator)).to(dtype), eighths.to(dtype)


def value_and_gradients(
    function: Callable[..., Tensor], operands: tuple[Tensor, ...], grad_output: Tensor | None = None
) -> tuple[Tensor, ...]:
    """Return the value of a function and its gradient by each operand, for a ``grad_output`` that is 1 by default."""
    leaves = [operand.detach().requires_grad_() for operand in operands]
    value = function(*leaves)
    grad_output = torch.ones_like(value) if grad_output is None else grad_output
    return value.detach(), *torch.autograd.grad(value, leaves, grad_output)
