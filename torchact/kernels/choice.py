"""The choice of each activation's kernels: the compiled one where it wins, a plain one elsewhere.

``python -m benchmarks activations`` measures what it rests on. torch's piecewise linear operators, and its derivatives
of sigmoid, tanh and softmax by the output, run as fast as memory does: there is nothing to win.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from torch import Tensor

from torchact import catalogue
from torchact.kernels.extension import STATUS, TORCH_HAS_FAST_TANH
from torchact.kernels.fused import fused, fused_normalised, fused_packed, fused_pair
from torchact.kernels.plain import PLAIN, PLAIN_PAIRS
from torchact.kernels.reference import Kernels, of_halves, of_record


def _fused(key: str, **directions: bool) -> Kernels:
    return fused(key, PLAIN[key], of_record(key, *PLAIN[key]), **directions)


def _unless_zero(key: str, *, on_cuda: bool = True) -> Kernels:
    """Return the compiled kernels, and torch's where the first parameter is 0, which raises or divides by it.

    Not on CUDA, where torch's operator obeys autocast and ours would not, if so asked.
    """
    compiled, plain = _fused(key), PLAIN[key]

    def chosen(input: Tensor, scale: Any) -> Kernels:
        return compiled if scale and (on_cuda or input.is_cpu) else plain

    def forward(input: Tensor, scale: Any, *parameters: Any) -> Tensor:
        return chosen(input, scale).forward(input, scale, *parameters)

    def backward(grad_output: Tensor, input: Tensor, scale: Any, *parameters: Any) -> Tensor:
        return chosen(input, scale).backward(grad_output, input, scale, *parameters)

    return Kernels(forward, backward)


def _with(name: Any, kernels: Kernels) -> Kernels:
    """Return kernels with their last argument, a name, given."""
    return Kernels(
        lambda *operands: kernels.forward(*operands, name), lambda *operands: kernels.backward(*operands, name)
    )


def _by_name(named: Mapping[Any, Kernels], otherwise: Kernels) -> Kernels:
    """Return kernels that choose by their last argument, a name; names that they do not know take the other way."""

    def forward(*arguments: Any) -> Any:
        *operands, name = arguments
        return named[name].forward(*operands) if name in named else otherwise.forward(*arguments)

    def backward(*arguments: Any) -> Any:
        *operands, name = arguments
        return named[name].backward(*operands) if name in named else otherwise.backward(*arguments)

    return Kernels(forward, backward)


def _step() -> Kernels:
    """Return the binary step's kernels: torch's are best but for a surrogate's derivative."""
    plain, surrogates = PLAIN["binary_step"], catalogue.SURROGATES.values()
    named = {
        surrogate.key: fused(
            f"binary_step_{surrogate.key}",
            _with(surrogate.key, plain),
            _with(surrogate.key, of_record("binary_step", *plain)),
            forward=False,
        )
        for surrogate in surrogates
    }
    return _by_name(named, plain)


_ALWAYS = (
    "logsigmoid",
    "softsign",
    "squared_relu",
    "elu",
    "selu",
    "silu",
    "swish",
    "quick_gelu",
    "gelu_tanh",
    "mish",
    "tanhshrink",
    "gaussian",
    "sine",
    "snake",
)

#: Those whose gradients of bfloat16 are computed faster than they are looked up, if not by the baseline's
#: instructions.
QUICK = frozenset(("logsigmoid", "softsign", "squared_relu", "elu", "selu", "gaussian"))
_COMPUTES_QUICKLY = STATUS.instruction_set != "baseline"

#: The kernels of every activation of one tensor. :func:`register` adds a user's own.
KERNELS: Mapping[str, Kernels] = MappingProxyType(
    _kernels := {
        **PLAIN,
        **{key: _fused(key, quick=key in QUICK and _COMPUTES_QUICKLY) for key in _ALWAYS},
        "sigmoid": _fused("sigmoid", backward=False),
        "tanh": _fused("tanh", float32=not TORCH_HAS_FAST_TANH, backward=False),
        # torch's gradient of half types is accurate, and faster than a table.
        "hardswish": fused("hardswish", PLAIN["hardswish"], PLAIN["hardswish"]),
        "celu": _unless_zero("celu"),
        "softplus": _unless_zero("softplus", on_cuda=False),
        "gelu": _by_name(
            {
                "none": fused("gelu", _with("none", PLAIN["gelu"]), _with("none", of_record("gelu", *PLAIN["gelu"]))),
                "tanh": _fused("gelu_tanh"),
            },
            PLAIN["gelu"],
        ),
        "binary_step": _step(),
        "softmax": fused_normalised("softmax", PLAIN["softmax"], shortest=64, backward=False),
        # On CUDA torch's takes two kernels, where it takes one for the others; those are to be measured there first.
        "softmin": fused_normalised("softmin", PLAIN["softmin"], shortest=64, backward=False, on_cuda=True),
        "log_softmax": fused_normalised("log_softmax", PLAIN["log_softmax"], shortest=128),
    }
)


def register(key: str, pair: Kernels) -> None:
    """Choose the kernels of a user's own activation."""
    _kernels[key] = pair


def forget(key: str) -> None:
    """Take back what :func:`register` did."""
    del _kernels[key]


#: Of those that are functions of two tensors: with a learnable parameter, or with a gate.
PAIR_KERNELS: Mapping[str, Kernels] = MappingProxyType(
    {
        "prelu": PLAIN_PAIRS["prelu"],
        "swish": fused_pair("learnable_swish", PLAIN_PAIRS["swish"], sums=True),
        "snake": fused_pair("learnable_snake", PLAIN_PAIRS["snake"], sums=True),
        "glu": fused_pair("glu", PLAIN_PAIRS["glu"]),
        "reglu": fused_pair("reglu", PLAIN_PAIRS["reglu"]),
        "geglu": _by_name(
            {
                "none": fused_pair("geglu", _with("none", PLAIN_PAIRS["geglu"])),
                "tanh": fused_pair("geglu_tanh", _with("tanh", PLAIN_PAIRS["geglu"])),
            },
            PLAIN_PAIRS["geglu"],
        ),
        "swiglu": fused_pair("swiglu", PLAIN_PAIRS["swiglu"]),
        "bilinear": fused_pair("bilinear", PLAIN_PAIRS["bilinear"], forward=False),
    }
)

#: Of gated units whose halves are packed.
PACKED_KERNELS: Mapping[str, Kernels] = MappingProxyType(
    {
        **{key: fused_packed(key, of_halves(PAIR_KERNELS[key])) for key in ("glu", "reglu", "swiglu", "bilinear")},
        "geglu": _by_name(
            {
                "none": fused_packed("geglu", _with("none", of_halves(PAIR_KERNELS["geglu"]))),
                "tanh": fused_packed("geglu_tanh", _with("tanh", of_halves(PAIR_KERNELS["geglu"]))),
            },
            of_halves(PAIR_KERNELS["geglu"]),
        ),
    }
)
