"""Who is timed: eager torch, ``torch.compile`` of that function alone, torchact, and torch accelerated by torchact."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from time import perf_counter
from types import MappingProxyType
from typing import Any, Literal, get_args

import torch
import torch._functorch.config as functorch_config
from torch import Tensor

import torchact
from benchmarks.cases import Case, Mode, Operands
from benchmarks.counterparts import Function
from benchmarks.interleaved import Runner, no_wait

Name = Literal["eager", "compile", "torchact", "accelerated"]
NAMES: tuple[Name, ...] = get_args(Name)

#: Those of torch's own operators that ``torchact.accelerated`` replaces, by what calls them.
ACCELERATED = frozenset({"sigmoid", "tanh", "silu", "mish", "gelu", "gelu_tanh", "logsigmoid"})

Around = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Provider:
    """Gives the function of a case that is timed, or None where it has none."""

    function: Callable[[Case], Function | None]
    around: Around = nullcontext  #: entered for each turn, outside the timing


def _compiled(case: Case) -> Function:
    theirs = case.theirs

    def function(*operands: Tensor) -> Tensor:
        return theirs(*operands)

    return torch.compile(function, fullgraph=True, dynamic=False)


def _acceleration() -> AbstractContextManager[Any]:
    return getattr(torchact, "accelerated")()  # noqa: B009  # which older versions do not have


PROVIDERS: Mapping[Name, Provider] = MappingProxyType(
    {
        "eager": Provider(lambda case: case.theirs),
        "compile": Provider(_compiled),
        "torchact": Provider(lambda case: case.ours),
        "accelerated": Provider(lambda case: case.theirs if case.activation in ACCELERATED else None, _acceleration),
    }
)


def missing(names: Sequence[Name], device: str = "cpu") -> dict[Name, str]:
    """Return those that this torchact does not have on a device, each with the reason in one line."""
    if "accelerated" not in names:
        return {}
    if not hasattr(torchact, "accelerated"):
        return {"accelerated": "accelerated is left out: this torchact has no torchact.accelerated()"}
    if device != "cpu":
        return {"accelerated": "accelerated is left out: torchact.accelerated() replaces torch's operators on the CPU"}
    return {}


@contextmanager
def compiling() -> Iterator[None]:
    """Let compiled functions run their backward more than once on one graph, and forget them at the end."""
    with functorch_config.patch(donated_buffer=False):
        torch.compiler.reset()
        try:
            yield
        finally:
            torch.compiler.reset()


def waiting_for(device: torch.device) -> Callable[[], None]:
    """Return what waits until a device has computed what it was asked for."""
    return functools.partial(torch.cuda.synchronize, device) if device.type == "cuda" else no_wait


def _both(*arounds: Around) -> Around:
    """Return what enters one after the other."""

    @contextmanager
    def around() -> Iterator[None]:
        with ExitStack() as stack:
            for entered in arounds:
                stack.enter_context(entered())
            yield

    return around


# After kernels have been registered the first calls take longer: small pieces have been cut out of the memory that the
# results had before, and they have new pages.
_WARMING_CALLS, _WARMING_SECONDS = 20, 0.03


def runner(provider: Provider, function: Function, operands: Operands, grad_output: Tensor, mode: Mode) -> Runner:
    """Return what times one mode of a function: for backward, the graph is built here."""
    wait = waiting_for(grad_output.device)

    def timing(call: Callable[[], object], *arounds: Around) -> Runner:
        if provider.around is nullcontext:
            return Runner(call, _both(*arounds), wait)

        @contextmanager
        def warmed() -> Iterator[None]:
            end = perf_counter() + _WARMING_SECONDS
            for _ in range(_WARMING_CALLS):
                call()
                if perf_counter() > end:
                    break
            yield

        return Runner(call, _both(*arounds, provider.around, warmed), wait)

    if mode == "forward":
        return timing(functools.partial(function, *operands), torch.no_grad)
    leaves = [operand.clone().requires_grad_() for operand in operands]
    if mode == "both":

        def forward_and_backward() -> object:
            return torch.autograd.grad(function(*leaves), leaves, grad_output)

        return timing(forward_and_backward)
    with provider.around():
        output = function(*leaves)
    return timing(functools.partial(torch.autograd.grad, output, leaves, grad_output, retain_graph=True))


def copy(elements: int, dtype: torch.dtype, device: torch.device) -> tuple[Runner, int]:
    """Return what times a plain copy into memory that is there already, and the bytes that it moves."""
    source = torch.ones(elements, dtype=dtype, device=device)
    copying = functools.partial(torch.empty_like(source).copy_, source)
    return Runner(copying, torch.no_grad, waiting_for(device)), 2 * source.nbytes
