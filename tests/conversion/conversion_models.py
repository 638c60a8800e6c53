"""Models to convert, and what their conversion must not change."""

import torch
from torch import nn


class NamedReLU(nn.ReLU):
    """A subclass that leaves forward alone."""

    def __init__(self, label, inplace=False):
        super().__init__(inplace)
        self.label = label

    def extra_repr(self):
        return self.label


class CountingSigmoid(nn.Sigmoid):
    """A subclass that adds to torch's forward."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, input):
        self.calls += 1
        return super().forward(input)


class ClippedReLU(nn.ReLU):
    """A subclass that computes something else."""

    def forward(self, input):
        return input.clamp(0, 1)


class SlottedReLU(nn.ReLU):
    __slots__ = ("label",)


class ReducedReLU(nn.ReLU):
    """A subclass that pickles in its own way."""

    def __init__(self, label):
        super().__init__()
        self.label = label

    def __reduce__(self):
        return type(self), (self.label,)


class Residual(nn.Module):
    """One ReLU module, called twice."""

    def __init__(self, channels=3):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = nn.Identity()

    def forward(self, x):
        y = self.relu(self.norm(self.conv1(x)))
        return self.relu(self.conv2(y) + self.shortcut(x))


def cnn():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 3, 3),
        nn.LeakyReLU(0.1, inplace=True),
        Residual(),
        nn.Flatten(),
        nn.LazyLinear(5),
        nn.Tanh(),
        nn.Softmax(dim=1),
    )


def pass_through(model, input):
    """Return the output and all gradients of one training step's worth of computation."""
    torch.manual_seed(0)  # of random slopes and of dropout
    input = input.clone().requires_grad_()
    output = model(input * 1)  # not a leaf, so that the first module may be in place
    model.zero_grad()
    output.square().sum().backward()
    return [output.detach(), input.grad, *(p.grad for p in model.parameters() if p.grad is not None)]


def assert_same_results(model, expected_from, input):
    for actual, expected in zip(pass_through(model, input), pass_through(expected_from, input), strict=True):
        assert torch.equal(actual, expected)


def assert_close_results(model, expected_from, input, ulp, unit=None):
    """Assert that results agree to a few units of the greatest: both round, each in its own way.

    The unit is the last place of the results' dtype, or of the dtype given. The greatest is that of the outputs, and
    that of all gradients, since some are the rounding errors of zero.
    """
    results = zip(pass_through(model, input), pass_through(expected_from, input), strict=True)
    (output, expected_output), *gradients = results
    assert_within([output], [expected_output], ulp, unit)
    assert_within(*zip(*gradients, strict=True), ulp, unit)


def assert_within(actual, expected, ulp, unit=None):
    greatest = max(float(tensor.abs().max()) for tensor in expected)
    tolerance = ulp * torch.finfo(unit or expected[0].dtype).eps * greatest
    torch.testing.assert_close(list(actual), list(expected), rtol=0, atol=tolerance)


def reasons(report):
    return {(it.paths, it.what): it.reason for it in report.left}


def calls_in(report):
    return [it.what.partition(" ")[2] for it in report.left if it.reason.startswith("functional call")]
