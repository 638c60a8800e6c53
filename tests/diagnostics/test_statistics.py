import math

import pytest
import torch

from torchact.diagnostics import statistics
from torchact.diagnostics.statistics import Statistics


def of(tensor):
    return statistics.unpack(statistics.reduce_tensor(tensor).tolist())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_statistics_are_those_of_the_float64_tensor(dtype):
    x = torch.randn(7, 5, generator=torch.Generator().manual_seed(0)).relu().to(dtype)
    exact = x.double()
    measured = of(x)
    assert measured.count == 35
    assert measured.zeros == (exact == 0).sum()
    assert measured.largest == exact.abs().max()
    # Sums of 35 float64 numbers: at most 35 roundings of the running sum.
    rounding = 35 * torch.finfo(torch.float64).eps
    assert measured.mean == pytest.approx(exact.mean().item(), rel=rounding)
    assert measured.norm == pytest.approx(exact.norm().item(), rel=rounding)
    assert measured.deviation == pytest.approx(exact.std(correction=0).item(), rel=4 * rounding)


def test_a_norm_does_not_underflow_where_a_float32_norm_does():
    x = torch.full((1024,), 1e-26)
    assert x.norm() == 0
    assert of(x).norm == pytest.approx(32e-26, rel=1e-6)  # 1e-26 itself is rounded to float32
    smallest = torch.full((4,), 2.0**-149)
    assert of(smallest).norm == 2.0**-148


def test_a_norm_whose_squares_underflow_float64_is_not_zero():
    assert of(torch.tensor([1e-200, 0.0], dtype=torch.float64)).norm == 1e-200


def test_a_large_tensor_is_reduced_in_pieces(monkeypatch):
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    whole = of(x)
    monkeypatch.setattr(statistics, "_PIECE", 64)
    pieces = of(x)
    assert (pieces.count, pieces.zeros, pieces.largest) == (whole.count, whole.zeros, whole.largest)
    assert pieces.norm == pytest.approx(whole.norm, rel=1e-14)
    assert pieces.total == pytest.approx(whole.total, rel=1e-12)


def test_merged_statistics_are_those_of_all_entries_together():
    parts = [torch.randn(size, generator=torch.Generator().manual_seed(size)) for size in (3, 1, 8)]
    together = of(torch.cat(parts))
    for merged in (
        statistics.merge([of(part) for part in parts]),
        statistics.merge([of(part) for part in reversed(parts)]),
        statistics.unpack(
            statistics.merge_reduced(
                statistics.merge_reduced(*(statistics.reduce_tensor(part) for part in parts[:2])),
                statistics.reduce_tensor(parts[2]),
            ).tolist()
        ),
    ):
        assert merged.count == together.count == 12
        assert merged.largest == together.largest
        assert merged.squares == pytest.approx(together.squares, rel=1e-14)
        assert merged.total == pytest.approx(together.total, rel=1e-13)


def test_non_finite_entries_are_counted_and_not_hidden():
    measured = of(torch.tensor([1.0, math.nan, math.inf, -math.inf]))
    assert measured.non_finite == 3
    assert math.isnan(measured.norm)
    assert math.isnan(measured.mean)
    assert math.isnan(measured.deviation)
    assert math.isnan((measured + Statistics(count=1, largest=2.0)).largest)


def test_of_nothing_there_is_no_mean_and_a_norm_of_zero():
    for empty in (of(torch.empty(0, 3)), statistics.merge([])):
        assert empty.count == 0
        assert empty.norm == 0
        assert math.isnan(empty.mean)
        assert math.isnan(empty.deviation)
        assert math.isnan(empty.zero_fraction)


def test_the_deviation_of_a_constant_is_zero_and_not_the_root_of_a_rounding_error():
    assert of(torch.full((1000,), 0.1)).deviation < 1e-8


def test_complex_and_sparse_tensors():
    assert of(torch.tensor([3 + 4j])).norm == 5
    sparse = torch.sparse_coo_tensor([[0, 0, 2]], [3.0, 1.0, 3.0], (5,), check_invariants=True)
    assert of(sparse).norm == 5


def test_strided_views_and_tensors_that_require_grad():
    x = torch.arange(12.0).reshape(3, 4).requires_grad_()
    assert of(x.t()[::2]).total == x[:, ::2].sum()
    assert not statistics.reduce_tensor(x).requires_grad
