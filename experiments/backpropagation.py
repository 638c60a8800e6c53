"""Backpropagation through a chain of single neurons: every number, three ways, and how fast each neuron learns.

Each derivative is computed by the chain rule written out, by torchact's Functions under ``torch.autograd`` and by
finite differences. A neuron's learning speed is |∂E/∂b_l| = |δ_l|, after Nielsen, "Neural Networks and Deep Learning",
chapter 5; neighbouring speeds differ by the factor |w_(l+1)·φ'(z_l)|, which is why gradients vanish.

Run it with ``python -m experiments backpropagation``. All quantities are pure numbers, without a unit.

Example:
    >>> chain_table(Settings())["delta"].abs().round(6).tolist()  # the two neurons' learning speeds
    [0.010214, 0.094756]
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.table import Table

from experiments import backpropagation_pictures, style
from experiments.backpropagation_chain import (
    Chain,
    Parameters,
    State,
    by_finite_differences,
    by_hand,
    forward,
    initial_parameters,
    state,
)
from experiments.results import ResultsFolder

#: In the ``--quick`` version the iteration stops after this many steps.
QUICK_ITERATIONS = 50

#: Longer tables are printed without their middle: this many rows at either end.
PRINTED_ENDS = 10

#: The steps of the iteration that are printed, besides the last.
MILESTONES = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)

CHAIN_COLUMNS = {
    "neuron": "l, counted from the input",
    "input": "a_(l−1), where a_0 = x",
    "weight": "w_l",
    "bias": "b_l",
    "preactivation": "z_l = w_l·a_(l−1) + b_l",
    "activation": "a_l = φ(z_l)",
    "slope": "φ'(z_l)",
    "delta": "δ_l = ∂E/∂z_l",
    "speed_ratio": "|∂E/∂b_(l+1)| / |∂E/∂b_l|, how much faster the next neuron learns; empty for 0/0 and the last",
}

DERIVATIVE_COLUMNS = {
    "neuron": "l, counted from the input",
    "parameter": "w (weight) or b (bias)",
    "value": "before the first step",
    "by_hand": "∂E/∂parameter by the chain rule written out",
    "by_functions": "the same by torchact's Functions under torch.autograd",
    "by_finite_differences": "the same by central differences of E",
    "updated": "after the first step: value − α·by_functions",
}

ITERATION_COLUMNS = {
    "iteration": "steps taken",
    "output": "a_L",
    "error": "E = ½(T − a_L)²",
}

NEURON_COLUMNS = {
    "iteration": "steps taken",
    "neuron": "l, counted from the input",
    "weight": "w_l",
    "bias": "b_l",
    "weight_gradient": "∂E/∂w_l",
    "bias_gradient": "∂E/∂b_l; its magnitude is the neuron's learning speed",
}


@dataclass(frozen=True, kw_only=True)
class Settings(Chain):
    """Backpropagation through a chain of single neurons: every number, three ways, and how fast each neuron learns.

    Raises:
        ValueError: an argument is outside what is accepted; the message names it, its value and what would be.
    """

    learning_rate: float = 0.4
    """Learning rate α."""

    iterations: int = 1000
    """Steps after which the iteration ends at the latest."""

    small_error: float = 1e-12
    """Error E at which it ends."""

    quick: bool = False
    """Take at most 50 steps, for a look that is over in a few seconds."""

    out: Path = Path("runs/backpropagation")
    """Folder for the tables, picture and summary."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate: expected a finite number above 0, got {self.learning_rate!r}")
        if self.iterations < 1:
            raise ValueError(f"iterations: expected 1 or more, got {self.iterations!r}")
        if not 0 <= self.small_error < math.inf:
            raise ValueError(f"small_error: expected a finite number, 0 or above, got {self.small_error!r}")

    @property
    def limit(self) -> int:
        """The number of steps to take at most: ``iterations`` or, with ``quick``, at most 50."""
        return min(self.iterations, QUICK_ITERATIONS) if self.quick else self.iterations


class Results(NamedTuple):
    """What the experiment finds: the four tables, whose columns the module's ``…_COLUMNS`` describe."""

    chain: pd.DataFrame
    derivatives: pd.DataFrame
    iterations: pd.DataFrame
    neurons: pd.DataFrame


def learning(settings: Settings) -> Iterator[State]:
    """Yield the states before the first step, after the first, and so on up to the last.

    The last one is where E is small, is not a finite number, has a gradient that is exactly zero (nothing would change
    any more), or where the limit is reached.
    """
    parameters = initial_parameters(settings)
    for iteration in itertools.count():
        current = state(parameters, settings)
        yield current
        still = not any(derivatives.any() for derivatives in current.gradient)
        if current.error <= settings.small_error or not math.isfinite(current.error) or still:
            return
        if iteration == settings.limit:
            return
        parameters = stepped(current, settings)


def stepped(current: State, settings: Settings) -> Parameters:
    """Return the parameters after one step of gradient descent, w − α·∂E/∂w."""
    pairs = zip(current.parameters, current.gradient, strict=True)
    return Parameters(*(parameter - settings.learning_rate * derivative for parameter, derivative in pairs))


def chain_table(settings: Settings) -> pd.DataFrame:
    """Return every intermediate value, one row a neuron; the columns are described in :data:`CHAIN_COLUMNS`."""
    parameters = initial_parameters(settings)
    preactivations, activations = forward(parameters, settings.x, settings.record.value)
    deltas = by_hand(parameters, settings).biases
    ratios = torch.cat([deltas[1:].abs() / deltas[:-1].abs(), torch.tensor([math.nan], dtype=torch.float64)])
    return pd.DataFrame(
        {
            "neuron": range(1, len(deltas) + 1),
            "input": activations[:-1],
            "weight": parameters.weights,
            "bias": parameters.biases,
            "preactivation": preactivations,
            "activation": activations[1:],
            "slope": settings.record.derivative(preactivations),
            "delta": deltas,
            "speed_ratio": ratios,
        }
    )


def derivative_table(settings: Settings) -> pd.DataFrame:
    """Return each partial derivative, three ways; the columns are described in :data:`DERIVATIVE_COLUMNS`."""
    start = state(initial_parameters(settings), settings)
    length = len(start.parameters.weights)
    table = pd.DataFrame(
        {
            "neuron": [*range(1, length + 1)] * 2,
            "parameter": ["w"] * length + ["b"] * length,
            "value": torch.cat(start.parameters),
            "by_hand": torch.cat(by_hand(start.parameters, settings)),
            "by_functions": torch.cat(start.gradient),
            "by_finite_differences": torch.cat(by_finite_differences(start.parameters, settings)),
            "updated": torch.cat(stepped(start, settings)),
        }
    )
    return table.sort_values("neuron", kind="stable", ignore_index=True)


def learning_tables(settings: Settings) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the iteration, one row a step and one row a step and neuron.

    The columns are described in :data:`ITERATION_COLUMNS` and :data:`NEURON_COLUMNS`.
    """
    states = list(learning(settings))
    iterations = pd.DataFrame([(step, current.output, current.error) for step, current in enumerate(states)])
    iterations.columns = pd.Index(ITERATION_COLUMNS)
    length = len(states[0].parameters.weights)
    index = np.indices((len(states), length)).reshape(2, -1)
    values = [torch.stack([*current.parameters, *current.gradient], dim=1) for current in states]
    neurons = pd.DataFrame(torch.cat(values).numpy(), columns=[*NEURON_COLUMNS][2:])
    neurons.insert(0, "iteration", index[0])
    neurons.insert(1, "neuron", index[1] + 1)
    return iterations, neurons


def run(settings: Settings) -> Results:
    """Compute all four tables."""
    return Results(chain_table(settings), derivative_table(settings), *learning_tables(settings))


def disagreement(derivatives: pd.DataFrame, method: str) -> float:
    """Return the largest |difference| of a method's derivatives from those by hand."""
    return float((derivatives[method] - derivatives["by_hand"]).abs().max())


def why_zero(settings: Settings, chain: pd.DataFrame) -> str:
    """Say why a derivative of the chain is exactly zero: by structure, by a dead neuron, or by underflow."""
    dead = chain["neuron"][chain["slope"] == 0].tolist()
    cut = chain["neuron"][1:][chain["weight"][1:] == 0].tolist()
    if settings.record.max_derivative() == 0:
        return f"the derivative of {settings.record.key} is 0 everywhere"
    if chain["activation"].iloc[-1] == settings.target:
        return "the output is the target already"
    if dead:
        return f"φ'(z) is 0 in neuron {', '.join(map(str, dead))}"
    if cut:
        return f"the weight of neuron {', '.join(map(str, cut))} is 0"
    return "the product of so many small factors underflows float64"


def speeds_sentence(settings: Settings, chain: pd.DataFrame) -> str:
    """Compare the learning speeds of the last neuron and the first, before the first step."""
    first, last = (abs(float(chain["delta"].iloc[end])) for end in (0, -1))
    if last == 0:
        return f"Learning never starts: every derivative is exactly 0, because {why_zero(settings, chain)}."
    if len(chain) == 1:
        return f"The one neuron learns at |∂E/∂b1| = {last:.4g}."
    if first == 0:
        return f"The first neuron does not learn: its derivatives are exactly 0, because {why_zero(settings, chain)}."
    factor = chain["slope"].iloc[0] * chain["weight"].iloc[1]
    return (
        f"Before the first step the last neuron learns {last / first:.4g} times as fast as the first "
        f"(|∂E/∂b{len(chain)}|/|∂E/∂b1| = {last:.4g}/{first:.4g}): on the way back each neuron multiplies the gradient "
        f"by its φ'(z) and the next one's weight, the first by φ'(z1)·w2 = {factor:.4g}."
    )


def ending_sentence(settings: Settings, iterations: pd.DataFrame) -> str:
    """Say how the iteration ended."""
    taken, last = len(iterations) - 1, iterations.iloc[-1]
    steps = f"{taken:,} iteration{'' if taken == 1 else 's'}"
    if not math.isfinite(last["error"]):
        return f"The error leaves float64's range after {steps}: α = {settings.learning_rate:g} is too large."
    if last["error"] <= settings.small_error:
        how = f"is down to {settings.small_error:g} after {steps}"
    elif taken == settings.limit:
        how = f"is {last['error']:.4g} at the limit of {steps}"
    else:
        how = f"stays {last['error']:.4g} from iteration {taken:,} on, where the gradient is exactly 0"
    return f"The error {how}, with output {last['output']:.6g} for target {settings.target:g}."


def finding(settings: Settings, results: Results) -> str:
    """Say in a few sentences how the neurons' speeds compare, how the iteration ended and how far the methods agree."""
    return (
        f"{speeds_sentence(settings, results.chain)} {ending_sentence(settings, results.iterations)} "
        f"From the derivatives by hand torchact's Functions differ by at most "
        f"{disagreement(results.derivatives, 'by_functions'):.1e} and finite differences by "
        f"{disagreement(results.derivatives, 'by_finite_differences'):.1e}."
    )


def summarise(settings: Settings, results: Results, sentence: str) -> dict[str, object]:
    """Return what the summary JSON holds."""
    last = results.iterations.iloc[-1]
    return {
        "finding": sentence,
        "speed_ratios": results.chain["speed_ratio"].tolist()[:-1],
        "initial_error": results.iterations["error"].iloc[0],
        "final_error": last["error"],
        "final_output": last["output"],
        "iterations": len(results.iterations) - 1,
        "functions_disagreement": disagreement(results.derivatives, "by_functions"),
        "differences_disagreement": disagreement(results.derivatives, "by_finite_differences"),
        "settings": vars(settings),
    }


def print_table(console: Console, title: str, headings: Mapping[str, str], table: pd.DataFrame) -> None:
    """Print the columns that ``headings`` names; of a long table only both ends."""
    grid = Table(title=title)
    for heading in headings.values():
        grid.add_column(heading, justify="right")
    for row in style.ends(table[[*headings]].to_dict("records"), PRINTED_ENDS, PRINTED_ENDS):
        if row is None:
            grid.add_row(*"⋮" * len(headings))
        else:
            texts = (f"{entry:.9g}" if isinstance(entry, float) else str(entry) for entry in row.values())
            grid.add_row(*("–" if text == "nan" else text for text in texts))
    console.print(grid)


def print_results(console: Console, settings: Settings, results: Results) -> None:
    """Print every intermediate value, each derivative three ways, the updates and milestones of the iteration."""
    title = f"Forward and back: x = {settings.x:g}, T = {settings.target:g}, φ = {settings.record.key}"
    headings = {"neuron": "l", "preactivation": "z", "activation": "a", "slope": "φ'(z)", "delta": "δ"}
    print_table(console, title, headings | {"speed_ratio": "|δ next| / |δ|"}, results.chain)
    names = results.derivatives["parameter"] + results.derivatives["neuron"].astype(str)
    named = results.derivatives.assign(name=names)
    headings = {"name": "", "by_hand": "by hand", "by_functions": "by Functions"}
    print_table(console, "∂E/∂parameter, three ways", headings | {"by_finite_differences": "differences"}, named)
    headings = {"name": "", "value": "before", "by_functions": "derivative", "updated": "after"}
    print_table(console, f"The first step, α = {settings.learning_rate:g}", headings, named)
    reached = [step for step in MILESTONES if step < len(results.iterations)]
    milestones = results.iterations.iloc[sorted({*reached, len(results.iterations) - 1})]
    print_table(console, "The iteration", {"iteration": "step", "output": "output a", "error": "error E"}, milestones)


def main(settings: Settings) -> None:
    """Compute the derivatives three ways, let the chain learn, and write and print what came out.

    Writes the values in the chain (chain.csv), the derivatives (derivatives.csv), the iteration (iterations.csv,
    neurons.csv), a picture of them (backpropagation.png) and the summary (summary.json).

    Args:
        settings: the chain, what it is to learn, and how fast.

    Raises:
        SystemExit: ``settings.out`` cannot be written to.
    """
    folder = ResultsFolder(settings.out)
    results = run(settings)
    sentence = finding(settings, results)
    folder.write_table("chain", results.chain, CHAIN_COLUMNS)
    folder.write_table("derivatives", results.derivatives, DERIVATIVE_COLUMNS)
    folder.write_table("iterations", results.iterations, ITERATION_COLUMNS)
    folder.write_table("neurons", results.neurons, NEURON_COLUMNS)
    picture = backpropagation_pictures.draw(settings, *results, small_error=settings.small_error)
    folder.write_picture("backpropagation", picture)
    folder.write_summary("summary", summarise(settings, results, sentence))
    console = Console()
    print_results(console, settings, results)
    console.print(sentence, highlight=False)
    console.print(f"Written to {folder.path}", highlight=False)
