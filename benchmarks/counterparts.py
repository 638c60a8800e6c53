"""What each activation is compared with: torch's own function, or what one writes in torch where it has none."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchact import functional
from torchact.catalogue import Activation

Function = Callable[..., Tensor]


def _swiglu(v: Tensor, g: Tensor, alpha: float, limit: float | None, offset: float) -> Tensor:
    if limit is not None:
        v, g = v.clamp(-limit, limit), g.clamp(max=limit)
    return (v + offset) * (g * torch.sigmoid(alpha * g))


#: What one writes in torch where it has no such function, and how a table calls it.
WRITTEN: Mapping[str, tuple[str, Function]] = MappingProxyType(
    {
        "identity": ("nn.Identity()(x)", nn.Identity()),
        "squared_relu": ("F.relu(x) ** 2", lambda x: F.relu(x) ** 2),
        "swish": ("x * torch.sigmoid(beta * x)", lambda x, beta: x * torch.sigmoid(beta * x)),
        "quick_gelu": ("x * torch.sigmoid(1.702 * x)", lambda x: x * torch.sigmoid(1.702 * x)),
        "gelu_tanh": ('F.gelu(x, approximate="tanh")', lambda x: F.gelu(x, approximate="tanh")),
        "gaussian": ("torch.exp(-x * x)", lambda x: torch.exp(-x * x)),
        "sine": ("torch.sin(omega * x)", lambda x, omega: torch.sin(omega * x)),
        "snake": ("x + torch.sin(alpha * x) ** 2 / alpha", lambda x, alpha: x + torch.sin(alpha * x) ** 2 / alpha),
        "glu": ("F.glu(torch.cat([v, g]), 0)", lambda v, g: F.glu(torch.cat([v, g]), 0)),
        "reglu": ("v * F.relu(g)", lambda v, g: v * F.relu(g)),
        "geglu": ("v * F.gelu(g)", lambda v, g, approximate: v * F.gelu(g, approximate=approximate)),
        "swiglu": ("(v + offset) * (g * torch.sigmoid(alpha * g))", _swiglu),
        "bilinear": ("v * g", lambda v, g: v * g),
        "softmax2d": ("nn.Softmax2d()(x)", nn.Softmax2d()),
    }
)

#: Gated units with their usual parameters, as one writes them to run fast: of the half that is gated, and the gate.
GATED: Mapping[str, Function] = MappingProxyType(
    {
        "glu": lambda v, g: v * torch.sigmoid(g),
        "reglu": lambda v, g: v * F.relu(g),
        "geglu": lambda v, g, approximate="none": v * F.gelu(g, approximate=approximate),
        "swiglu": lambda v, g: v * F.silu(g),
        "bilinear": lambda v, g: v * g,
    }
)


def functions(record: Activation, **parameters: Any) -> tuple[Function, Function | None]:
    """Return torchact's function and its counterpart, if there is one, with parameters chosen."""
    theirs: Function | None = WRITTEN[record.key][1] if record.key in WRITTEN else record.torch_function
    ours = functools.partial(getattr(functional, record.key), **parameters)
    return ours, None if theirs is None else functools.partial(theirs, **parameters)
