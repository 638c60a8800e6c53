"""The ``torch.autograd.Function`` of each activation, one file a family."""

from torchact.autograd.exponential import CELU, ELU, SELU, Softplus
from torchact.autograd.function import ActivationFunction, PairFunction
from torchact.autograd.gated import GEGLU, GLU, Bilinear, ReGLU, SwiGLU
from torchact.autograd.linear import Identity
from torchact.autograd.normalised import LogSoftmax, Softmax, Softmin
from torchact.autograd.periodic import Gaussian, LearnableSnake, Sine, Snake
from torchact.autograd.rectifiers import (
    LeakyReLU,
    PReLU,
    RandomRReLU,
    ReLU,
    ReLU6,
    RReLU,
    SquaredReLU,
    Threshold,
)
from torchact.autograd.self_gated import (
    GELU,
    GELUTanh,
    Hardswish,
    LearnableSwish,
    Mish,
    QuickGELU,
    SiLU,
    Swish,
)
from torchact.autograd.shrinkage import Hardshrink, Softshrink, Tanhshrink
from torchact.autograd.sigmoidal import Hardsigmoid, Hardtanh, LogSigmoid, Sigmoid, Softsign, Tanh
from torchact.autograd.step import BinaryStep

__all__ = [
    "CELU",
    "ELU",
    "GEGLU",
    "GELU",
    "GLU",
    "SELU",
    "ActivationFunction",
    "Bilinear",
    "BinaryStep",
    "GELUTanh",
    "Gaussian",
    "Hardshrink",
    "Hardsigmoid",
    "Hardswish",
    "Hardtanh",
    "Identity",
    "LeakyReLU",
    "LearnableSnake",
    "LearnableSwish",
    "LogSigmoid",
    "LogSoftmax",
    "Mish",
    "PReLU",
    "PairFunction",
    "QuickGELU",
    "RReLU",
    "RandomRReLU",
    "ReGLU",
    "ReLU",
    "ReLU6",
    "SiLU",
    "Sigmoid",
    "Sine",
    "Snake",
    "Softmax",
    "Softmin",
    "Softplus",
    "Softshrink",
    "Softsign",
    "SquaredReLU",
    "SwiGLU",
    "Swish",
    "Tanh",
    "Tanhshrink",
    "Threshold",
]
