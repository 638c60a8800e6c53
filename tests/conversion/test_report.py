"""The report reads well."""

import torch
from torch import nn

from torchact.conversion import convert


def test_report_reads_well():
    class Net(nn.Module):
        def forward(self, x):
            return torch.relu(x) + torch.relu(x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x)

    relu = nn.ReLU()
    report = convert(
        nn.Sequential(relu, nn.Sequential(relu, relu, nn.ReLU()), nn.RNN(1, 1), nn.Sigmoid(), Net(), nn.RNN(1, 1))
    )
    lines = str(report).splitlines()
    calls = [it.what.partition(" ")[0] for it in report.left if it.paths == ("4",)]
    assert lines[:5] == [
        "Replaced",
        "  0, 1.0, ... (4 places)  torch.nn.ReLU     -> torchact.ReLU",
        "  3                       torch.nn.Sigmoid  -> torchact.Sigmoid",
        "Left alone",
        f"  2, 5  torch.nn.RNN{' ' * 60}  computes Tanh in a fused kernel",
    ]
    assert lines[5].startswith(f"  4     {calls[0]} torch.relu(x)  ")
    assert lines[6].startswith(f"  4     {calls[1]} torch.relu(x + x")
    assert lines[6].endswith("...  functional call; only modules are swapped")
    assert lines[7:] == ["Replaced 3 activations; left 4 alone."]


def test_report_on_nothing_and_on_one():
    assert str(convert(nn.Linear(1, 1))) == "Replaced 0 activations; left 0 alone."
    assert str(convert(nn.ReLU())).splitlines() == [
        "Replaced",
        "  (model)  torch.nn.ReLU  -> torchact.ReLU",
        "Replaced 1 activation; left 0 alone.",
    ]
