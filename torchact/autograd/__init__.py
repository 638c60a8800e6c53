"""The ``torch.autograd.Function`` of each activation, one file a family."""

from torchact.autograd.function import ActivationFunction
from torchact.autograd.linear import Identity
from torchact.autograd.normalised import Softmax
from torchact.autograd.rectifiers import LeakyReLU, ReLU
from torchact.autograd.sigmoidal import Sigmoid, Tanh
from torchact.autograd.threshold import BinaryStep

__all__ = ["ActivationFunction", "BinaryStep", "Identity", "LeakyReLU", "ReLU", "Sigmoid", "Softmax", "Tanh"]
