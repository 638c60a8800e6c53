"""Functions of a 16-bit number on the CPU, by a table of all 65,536 results.

A table holds values in the half type itself, or derivatives rounded to float32, whose product with ``grad_output`` is
rounded once more. What is computed directly is rounded in the same way, so that how many numbers there are changes no
bit.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from torchact.kernels import extension

HALF_TYPES = frozenset((torch.bfloat16, torch.float16))
_ENTRIES = 2**16

Function = Callable[..., Tensor]
_Key = tuple[Function, tuple[Any, ...], torch.dtype]

# How many entries have been computed without a table. The one that makes as many as a table has pays for the table:
# so a function that is called once more than it was worth has cost twice the least at most. A call of few numbers
# counts as the entries that take as long: measured tables took as long as 55 to 335 calls.
_spent: dict[_Key, int] = {}
_MOST_COUNTED = 1024
_LEAST_OF_A_CALL = _ENTRIES // 64


def is_tabulated(function: Function, parameters: tuple[Any, ...], input: Tensor) -> bool:
    """Whether the results for this tensor are to be looked up.

    They are once there is a table, or so many results have been asked for that making it is no loss.
    """
    if (
        any(isinstance(parameter, Tensor) for parameter in parameters)
        or torch._C._len_torch_dispatch_stack()  # a mode's tensors must not stay in the table
        or not (extension.STATUS.loaded or input.is_contiguous())
    ):
        return False
    key = function, parameters, input.dtype
    spent = _spent.get(key, 0) + max(input.numel(), _LEAST_OF_A_CALL)
    if spent < _ENTRIES:
        if len(_spent) >= _MOST_COUNTED:
            _spent.clear()
        _spent[key] = spent
        return False
    _spent[key] = _ENTRIES
    return True


def value(function: Function, parameters: tuple[Any, ...], input: Tensor) -> Tensor:
    """Return the function's values in the dtype of the input."""
    values = of_values(function, parameters, input.dtype)
    if extension.STATUS.loaded:
        return _look_up(input, values)
    return torch.index_select(values, 0, _bits(input)).view(input.shape)


def product(function: Function, parameters: tuple[Any, ...], grad_output: Tensor, input: Tensor) -> Tensor:
    """Return the function's values, rounded to float32, times ``grad_output``."""
    slopes = of_derivatives(function, parameters, input.dtype)
    if extension.STATUS.loaded:
        return _look_up_backward(grad_output, input, slopes)
    slope = torch.index_select(slopes, 0, _bits(input)).view(input.shape)
    return slope.mul_(grad_output).to(grad_output.dtype)


def _bits(input: Tensor) -> Tensor:
    return input.detach().view(torch.uint16).flatten().int()


@functools.lru_cache(maxsize=64)  # of 128 KiB
def of_values(function: Function, parameters: tuple[Any, ...], dtype: torch.dtype) -> Tensor:
    """Return a function's values at all numbers of a half type, in the order of their bits as unsigned integers."""
    return _table(function, parameters, dtype, dtype)


@functools.lru_cache(maxsize=64)  # of 256 KiB
def of_derivatives(function: Function, parameters: tuple[Any, ...], dtype: torch.dtype) -> Tensor:
    """Return the same of a derivative, in float32."""
    return _table(function, parameters, dtype, torch.float32)


def _table(function: Function, parameters: tuple[Any, ...], dtype: torch.dtype, rounded_to: torch.dtype) -> Tensor:
    with torch.inference_mode(False), torch.no_grad():
        every = torch.arange(_ENTRIES, dtype=torch.int32, device="cpu").to(torch.uint16).view(dtype)
        return function(every.double(), *parameters).to(rounded_to)


if extension.STATUS.loaded:
    _look_up = extension.operator("look_up")
    _look_up_backward = extension.operator("look_up_backward")
