"""The identity, known in introductions as the "linear" activation."""

from __future__ import annotations

import math

import torch
from torch import nn

from torchact.catalogue.record import Activation

IDENTITY = Activation(
    key="identity",
    name="Identity",
    formula=r"x",
    derivative_formula=r"1",
    value=lambda x: x,
    derivative=torch.ones_like,
    second_derivative=torch.zeros_like,
    range=(-math.inf, math.inf),
    monotone=True,
    saves="nothing",
    torch_module=nn.Identity,
    aliases=("linear", "none"),
    source="Widrow and Hoff 1960, Adaptive Switching Circuits (IRE WESCON)",
)

ACTIVATIONS = (IDENTITY,)
