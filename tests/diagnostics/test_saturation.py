import math

import pytest
import torch

from tests.conftest import CASES
from torchact import catalogue
from torchact.diagnostics import Thresholds, statistics
from torchact.diagnostics.saturation import saturated_intervals

FRACTION = Thresholds().saturated_slope


def intervals(key, fraction=FRACTION, **parameters):
    record = catalogue.get(key)
    return saturated_intervals(record, tuple(sorted({**record.parameters, **parameters}.items())), fraction)


def test_the_sigmoid_is_saturated_beyond_where_its_slope_is_the_fraction_of_a_quarter():
    (low, high) = intervals("sigmoid")
    at = float(low[1])
    assert (low.tolist(), high.tolist()) == ([-math.inf, at], [pytest.approx(-at), math.inf])
    slope = torch.sigmoid(torch.tensor(at, dtype=torch.float64))
    assert float(slope * (1 - slope)) == pytest.approx(FRACTION / 4)


def test_a_rectifier_is_dead_left_of_its_kink():
    assert intervals("relu").tolist() == [[-math.inf], [0.0]]
    assert intervals("leaky_relu", negative_slope=0.5).shape == (2, 0)


def test_a_narrow_dip_is_found_and_a_wave_has_too_many():
    assert any(low < -0.7518 < high for low, high in intervals("gelu").t().tolist())
    assert intervals("sine") is None


@pytest.mark.parametrize("case", [case for case in CASES if case.activation.elementwise and not case.learnt], ids=str)
def test_counting_in_the_intervals_is_counting_small_slopes(case):
    found = intervals(case.key, **case.parameters)
    if found is None:
        assert case.key in ("sine", "snake")
        return
    x = torch.linspace(-30, 30, 20001)
    greatest = case.activation.max_derivative(**case.parameters)
    limit = 0.0 if math.isinf(greatest) else FRACTION * greatest
    expected = int((case.derivative(x).abs() <= limit).sum())
    sums = torch.zeros(2, dtype=torch.float64)
    statistics.add_within(sums, [x], found)
    assert sums[0] == x.numel()
    assert abs(sums[1] - expected) <= 4  # of numbers at the ends, rounding decides
