"""Backpropagation through a chain of single neurons: every number, three ways, and how fast each neuron learns.

The chain is a_0 = x, z_l = w_l·a_(l−1) + b_l, a_l = φ(z_l), with the error E = ½(T − a_L)². The chain rule gives::

    δ_L = (a_L − T)·φ'(z_L)        δ_l = δ_(l+1)·w_(l+1)·φ'(z_l)
    ∂E/∂w_l = δ_l·a_(l−1)          ∂E/∂b_l = δ_l

Each derivative is computed by these formulas, by torchact's Functions under ``torch.autograd`` and by finite
differences, all in float64. A neuron's learning speed is |∂E/∂b_l| = |δ_l|, after Nielsen, "Neural Networks and Deep
Learning", chapter 5; neighbouring speeds differ by the factor |w_(l+1)·φ'(z_l)|, which is why gradients vanish.

Run it with ``python -m experiments backpropagation``. All quantities are pure numbers, without a unit.

Example:
    >>> settings = Settings()
    >>> gradient = by_hand(initial_parameters(settings), settings)
    >>> [round(speed, 6) for speed in gradient.biases.tolist()]
    [0.010214, 0.094756]
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from rich.console import Console
from rich.table import Table
from torch import Tensor

from experiments.results import ResultsFolder
from torchact import catalogue, modules

#: Step h of the central differences relative to max(1, |parameter|): the cube root of float64's ε, which balances
#: rounding (ε/h) against truncation (h²); Press et al., Numerical Recipes, section 5.7.
DIFFERENCE_STEP = torch.finfo(torch.float64).eps ** (1 / 3)

#: In the ``--quick`` version the iteration stops after this many steps.
QUICK_ITERATIONS = 50

#: Longer tables are printed without their middle: this many rows at either end.
PRINTED_ENDS = 10

#: The longest chain that is drawn whole, and the longest whose neurons are told apart in the legend.
LONGEST_DRAWN, LONGEST_LABELLED = 4, 10

#: Colours of what goes forward through the chain and what comes back.
FORWARD, BACKWARD = "tab:blue", "tab:red"

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
class Settings:
    """Backpropagation through a chain of single neurons: every number, three ways, and how fast each neuron learns.

    Raises:
        ValueError: an argument is outside what is accepted; the message names it, its value and what would be.
    """

    x: float = 0.1
    """Input of the first neuron."""

    weights: tuple[float, ...] = (0.15, 0.45)
    """Weight of each neuron, from the input to the output."""

    biases: tuple[float, ...] = (0.4, 0.65)
    """Bias of each neuron, as many as there are weights."""

    neurons: int | None = None
    """Length of the chain, if not the number of weights.
    Fewer neurons keep the first ones; more are appended
    at the output, with weights and biases drawn evenly from [0, 1)."""

    seed: int = 0
    """Seed of the neurons that are drawn."""

    target: float = 0.25
    """Target T of the output."""

    activation: str = "sigmoid"
    """Activation φ of every neuron: any elementwise one in torchact's catalogue."""

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
        record = catalogue.get(self.activation)
        if not record.elementwise:
            choices = ", ".join(key for key, other in catalogue.CATALOGUE.items() if other.elementwise)
            raise ValueError(
                f"activation: expected one that takes each number by itself ({choices}), got {self.activation!r}, "
                f"which needs several (the softmax of one number is always 1)"
            )
        if not self.weights or len(self.weights) != len(self.biases):
            raise ValueError(
                f"weights, biases: expected one of each for every neuron, got {len(self.weights)} weights "
                f"{self.weights!r} and {len(self.biases)} biases {self.biases!r}"
            )
        for name in ("x", "weights", "biases", "target"):
            value = getattr(self, name)
            if not np.isfinite(value).all():
                raise ValueError(f"{name}: expected finite numbers, got {value!r}")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate: expected a finite number above 0, got {self.learning_rate!r}")
        if self.neurons is not None and self.neurons < 1:
            raise ValueError(f"neurons: expected 1 or more, got {self.neurons!r}")
        if self.iterations < 1:
            raise ValueError(f"iterations: expected 1 or more, got {self.iterations!r}")
        if not 0 <= self.small_error < math.inf:
            raise ValueError(f"small_error: expected a finite number, 0 or above, got {self.small_error!r}")
        start = state(initial_parameters(self), self)
        if not math.isfinite(start.error) or not torch.cat(start.gradient).isfinite().all():
            raise ValueError(
                f"x, weights, biases, target: expected numbers whose error and derivatives stay within float64's "
                f"range, got the error {start.error:g}"
            )

    @property
    def record(self) -> catalogue.Activation:
        """What the catalogue knows of the activation."""
        return catalogue.get(self.activation)

    @property
    def limit(self) -> int:
        """The number of steps to take at most: ``iterations`` or, with ``quick``, at most 50."""
        return min(self.iterations, QUICK_ITERATIONS) if self.quick else self.iterations


class Parameters(NamedTuple):
    """The weights and biases of a chain, or the derivatives of E with respect to them; float64, one entry a neuron."""

    weights: Tensor
    biases: Tensor


class State(NamedTuple):
    """Where the iteration stands: the parameters, the gradient there, the output a_L and the error E."""

    parameters: Parameters
    gradient: Parameters
    output: float
    error: float


class Results(NamedTuple):
    """What the experiment finds: the four tables, whose columns the module's ``…_COLUMNS`` describe."""

    chain: pd.DataFrame
    derivatives: pd.DataFrame
    iterations: pd.DataFrame
    neurons: pd.DataFrame


def initial_parameters(settings: Settings) -> Parameters:
    """Return the given weights and biases, cut or extended to ``settings.neurons``."""
    given = torch.tensor([settings.weights, settings.biases], dtype=torch.float64)
    length = given.shape[1] if settings.neurons is None else settings.neurons
    generator = torch.Generator().manual_seed(settings.seed)
    # Drawn neuron by neuron, so that a longer chain begins with the shorter one of the same seed.
    drawn = torch.rand(max(0, length - given.shape[1]), 2, generator=generator, dtype=torch.float64)
    weights, biases = torch.cat([given[:, :length], drawn.T], dim=1)
    return Parameters(weights, biases)


def forward(parameters: Parameters, x: float, activation: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Return z_1 … z_L and a_0 … a_L of the chain, or of many chains side by side, one a column."""
    preactivations, activations = [], [torch.full_like(parameters.weights[0], x)]
    for weight, bias in zip(*parameters, strict=True):
        preactivations.append(weight * activations[-1] + bias)
        activations.append(activation(preactivations[-1]))
    return torch.stack(preactivations), torch.stack(activations)


def error(output: Tensor, target: float) -> Tensor:
    """Return E = ½(T − a_L)². ``torch.nn.MSELoss`` lacks the ½, so that its gradient is twice this one's."""
    return (target - output) ** 2 / 2


def by_hand(parameters: Parameters, settings: Settings) -> Parameters:
    """Return the gradient of E by the chain rule written out, from the catalogue's formula for φ'."""
    preactivations, activations = forward(parameters, settings.x, settings.record.value)
    slopes = settings.record.derivative(preactivations)
    deltas = torch.empty_like(preactivations)
    deltas[-1] = (activations[-1] - settings.target) * slopes[-1]
    for layer in reversed(range(len(deltas) - 1)):
        deltas[layer] = deltas[layer + 1] * parameters.weights[layer + 1] * slopes[layer]
    return Parameters(weights=deltas * activations[:-1], biases=deltas)


def by_functions(parameters: Parameters, settings: Settings) -> Parameters:
    """Return the gradient of E by torchact's Functions, which ``torch.autograd`` chains."""
    return state(parameters, settings).gradient


def by_finite_differences(parameters: Parameters, settings: Settings) -> Parameters:
    """Return the gradient of E by central differences; across a kink of φ they are an average of both sides."""
    point = torch.cat(parameters)
    steps = DIFFERENCE_STEP * point.abs().clamp(min=1)

    def errors_at(points: Tensor) -> Tensor:  # one point a column: all parameters are moved at once, each in its own
        weights, biases = points.chunk(2)
        _, activations = forward(Parameters(weights, biases), settings.x, settings.record.value)
        return error(activations[-1], settings.target)

    up, down = errors_at(point[:, None] + torch.diag(steps)), errors_at(point[:, None] - torch.diag(steps))
    weights, biases = ((up - down) / (2 * steps)).chunk(2)
    return Parameters(weights, biases)


def state(parameters: Parameters, settings: Settings) -> State:
    """Return the output, the error and its gradient at ``parameters``, by torchact's Functions."""
    leaves = Parameters(*(parameter.detach().requires_grad_() for parameter in parameters))
    _, activations = forward(leaves, settings.x, modules.create(settings.activation))
    value = error(activations[-1], settings.target)
    gradient = Parameters(*torch.autograd.grad(value, leaves))
    return State(parameters, gradient, activations[-1].item(), value.item())


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
    weights, biases = (
        parameter - settings.learning_rate * derivative
        for parameter, derivative in zip(current.parameters, current.gradient, strict=True)
    )
    return Parameters(weights, biases)


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


def drawable(values: pd.Series) -> np.ndarray:
    """Return the values with NaN for those that a logarithmic axis cannot show: 0, infinities and what comes near."""
    magnitudes = values.abs().to_numpy()
    # matplotlib places ticks beyond an axis, and they must stay within float64's range too.
    return np.where((magnitudes > 1e-200) & (magnitudes < 1e200), magnitudes, np.nan)


def draw_chain(axes: Axes, settings: Settings, chain: pd.DataFrame) -> None:
    """Draw the chain with the values going forward above it and the derivatives coming back below it.

    Of a chain longer than :data:`LONGEST_DRAWN` the first two neurons and the last two are drawn.
    """
    rows: list[dict | None] = [*chain.to_dict("records")]
    if len(rows) > LONGEST_DRAWN:
        rows[2:-2] = [None]
    axes.text(0, 0, f"x = {settings.x:.4g}", ha="center", va="center", fontsize=12)
    for place, (row, following) in enumerate(itertools.pairwise([*rows, None]), start=1):
        if row is None:
            axes.text(place, 0, "…", ha="center", va="center", fontsize=20)
        else:
            _draw_neuron(axes, place, row)
        if row is not None and following is not None:
            factor = f"× w{following['neuron']}·φ'(z{row['neuron']})\n= {following['weight'] * row['slope']:.4g}"
            axes.text(place + 0.5, -0.14, factor, ha="center", va="top", color=BACKWARD)
    length, end = len(chain), len(rows) + 1
    for place in range(end):
        axes.annotate("", (place + 0.8, 0.06), (place + 0.2, 0.06), arrowprops={"arrowstyle": "->", "color": FORWARD})
    for place in range(1, end):
        axes.annotate(
            "", (place + 0.2, -0.06), (place + 0.8, -0.06), arrowprops={"arrowstyle": "->", "color": BACKWARD}
        )
    loss = (settings.target - chain["activation"].iloc[-1]) ** 2 / 2
    target = f"E = ½(T − a{length})²\n= {loss:.6g}\nT = {settings.target:.4g}"
    axes.text(end - 0.15, 0, target, ha="left", va="center", fontsize=12)
    axes.text(end - 0.5, -0.14, f"(a{length} − T)·φ'(z{length})", ha="center", va="top", color=BACKWARD)
    axes.set(xlim=(-0.3, end + 0.45), ylim=(-0.85, 0.85))
    axes.set_axis_off()


def _draw_neuron(axes: Axes, place: int, row: Mapping[str, Any]) -> None:
    neuron = row["neuron"]
    circle = {"boxstyle": "circle,pad=0.8", "facecolor": "0.95", "edgecolor": "0.3"}
    parameters = f"w{neuron} = {row['weight']:.4g}\nb{neuron} = {row['bias']:.4g}"
    forward_text = f"z{neuron} = {row['preactivation']:.6g}\na{neuron} = {row['activation']:.6g}"
    back_text = f"∂E/∂b{neuron} = {row['delta']:.4g}\n∂E/∂w{neuron} = {row['delta'] * row['input']:.4g}"
    axes.text(place, 0, str(neuron), ha="center", va="center", bbox=circle, fontsize=14)
    axes.text(place - 0.5, 0.14, parameters, ha="center", va="bottom", color=FORWARD)
    axes.text(place, 0.42, forward_text, ha="center", va="bottom", color=FORWARD, fontsize=12)
    axes.text(place, -0.42, back_text, ha="center", va="top", color=BACKWARD, fontsize=12)


def draw_derivatives(axes: Axes, derivatives: pd.DataFrame) -> None:
    """Draw the size of each derivative before the first step, by the three methods, over the neurons."""
    markers = (("by_hand", "o", 11), ("by_functions", "x", 8), ("by_finite_differences", "+", 13))
    for parameter, colour in (("w", "tab:orange"), ("b", "tab:purple")):
        rows = derivatives[derivatives["parameter"] == parameter]
        for method, marker, size in markers:
            label = f"∂E/∂{parameter} {method.replace('_', ' ')}"
            sizes = drawable(rows[method])
            axes.plot(rows["neuron"], sizes, marker, markersize=size, fillstyle="none", color=colour, label=label)
    shown = drawable(derivatives["by_hand"])
    if np.isnan(shown).all():
        say_all_zero(axes)
    else:
        axes.set(yscale="log", ylim=(np.nanmin(shown) / 3, np.nanmax(shown) * 3))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlim(0.5, derivatives["neuron"].max() + 0.5)
    axes.set(xlabel="neuron (1 is nearest the input)", ylabel="|derivative| before the first step")
    axes.set_title("Three ways, the same derivatives")
    axes.legend(fontsize="small")


def draw_error(axes: Axes, settings: Settings, iterations: pd.DataFrame) -> None:
    """Draw the error over the iterations."""
    style = "o-" if len(iterations) <= 60 else "-"
    axes.plot(
        iterations["iteration"], drawable(iterations["error"]), style, color="tab:green", linewidth=2, markersize=4
    )
    if settings.small_error > 0:
        axes.axhline(settings.small_error, color="0.5", linestyle=":", label=f"small: {settings.small_error:g}")
        axes.legend()
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set(xlabel="iteration", ylabel="error E = ½(T − a)²", title="The error")


def draw_speeds(axes: Axes, neurons: pd.DataFrame) -> None:
    """Draw each neuron's learning speed over the iterations."""
    length = int(neurons["neuron"].max())
    for neuron, rows in neurons.groupby("neuron"):
        colour = colormaps["plasma"](0.85 * (neuron - 1) / max(1, length - 1))
        label = f"neuron {neuron}" if length <= LONGEST_LABELLED or neuron in (1, length) else None
        if label and not rows["bias_gradient"].any():
            label += ": exactly 0"
        style = "o-" if len(rows) <= 60 and length <= LONGEST_LABELLED else "-"
        speeds = drawable(rows["bias_gradient"])
        axes.plot(rows["iteration"], speeds, style, color=colour, label=label, markersize=4)
    if neurons["bias_gradient"].any():
        axes.set_yscale("log")
        if length <= LONGEST_LABELLED:
            point_at_standstill(axes, neurons)
    else:
        say_all_zero(axes)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set(xlabel="iteration", ylabel="learning speed |∂E/∂b|", title="How fast each neuron learns")
    axes.legend()


def point_at_standstill(axes: Axes, neurons: pd.DataFrame) -> None:
    """Point at the first dip where a weight changes sign: nothing comes back through it to the neurons before."""
    weights = neurons.pivot(index="iteration", columns="neuron", values="weight")
    speeds = neurons.pivot(index="iteration", columns="neuron", values="bias_gradient").abs()
    for neuron in weights.columns[1:]:
        weight, speed = weights[neuron].to_numpy(), speeds[neuron - 1].to_numpy()
        for crossing in np.flatnonzero(weight[:-1] * weight[1:] < 0):
            lowest = crossing + int(np.argmin(speed[crossing : crossing + 2]))
            if 0 < speed[lowest] < min(speed[0], speed[lowest:].max()):
                axes.annotate(
                    f"w{neuron} changes sign",
                    (lowest, speed[lowest]),
                    xytext=(0.03, 0.05),
                    textcoords="axes fraction",
                    arrowprops={"arrowstyle": "->"},
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
                )
                return


def say_all_zero(axes: Axes) -> None:
    """Say what a logarithmic axis cannot show."""
    axes.text(
        0.5, 0.5, "every derivative is exactly 0", transform=axes.transAxes, ha="center", va="center", fontsize=12
    )
    axes.set_yticks([])


def draw(settings: Settings, results: Results) -> Figure:
    """Return the picture: the chain with its values, the derivatives three ways, the error and the learning speeds."""
    figure = Figure(figsize=(16, 9), layout="constrained")
    grid = figure.add_gridspec(2, 3, height_ratios=(0.8, 1))
    draw_chain(figure.add_subplot(grid[0, :]), settings, results.chain)
    left, middle, right = (figure.add_subplot(grid[1, column]) for column in range(3))
    draw_derivatives(left, results.derivatives)
    draw_error(middle, settings, results.iterations)
    draw_speeds(right, results.neurons)
    length = len(results.chain)
    figure.suptitle(
        f"Backpropagation through {length} neuron{'s' if length > 1 else ''}, φ = {settings.record.key}: "
        f"forward above, backward below",
        fontsize=14,
    )
    return figure


def print_table(console: Console, title: str, headings: Mapping[str, str], table: pd.DataFrame) -> None:
    """Print the columns that ``headings`` names; of a long table only both ends."""
    grid = Table(title=title)
    for heading in headings.values():
        grid.add_column(heading, justify="right")
    for place, row in enumerate(table[[*headings]].to_dict("records")):
        if place < PRINTED_ENDS or place >= len(table) - PRINTED_ENDS:
            texts = (f"{entry:.9g}" if isinstance(entry, float) else str(entry) for entry in row.values())
            grid.add_row(*("–" if text == "nan" else text for text in texts))
        elif place == PRINTED_ENDS:
            grid.add_row(*"⋮" * len(headings))
    console.print(grid)


def print_results(console: Console, settings: Settings, results: Results) -> None:
    """Print every intermediate value, each derivative three ways, the updates and milestones of the iteration."""
    title = f"Forward and back: x = {settings.x:g}, T = {settings.target:g}, φ = {settings.record.key}"
    headings = {"neuron": "l", "preactivation": "z", "activation": "a", "slope": "φ'(z)", "delta": "δ"}
    print_table(console, title, headings | {"speed_ratio": "|δ next| / |δ|"}, results.chain)
    named = results.derivatives.assign(
        name=results.derivatives["parameter"] + results.derivatives["neuron"].astype(str)
    )
    headings = {
        "name": "",
        "by_hand": "by hand",
        "by_functions": "by Functions",
        "by_finite_differences": "differences",
    }
    print_table(console, "∂E/∂parameter, three ways", headings, named)
    title = f"The first step, α = {settings.learning_rate:g}"
    print_table(
        console, title, {"name": "", "value": "before", "by_functions": "derivative", "updated": "after"}, named
    )
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
    folder.write_picture("backpropagation", draw(settings, results))
    folder.write_summary(
        "summary",
        {
            "finding": sentence,
            "speed_ratios": results.chain["speed_ratio"].tolist()[:-1],
            "initial_error": results.iterations["error"].iloc[0],
            "final_error": results.iterations["error"].iloc[-1],
            "final_output": results.iterations["output"].iloc[-1],
            "iterations": len(results.iterations) - 1,
            "functions_disagreement": disagreement(results.derivatives, "by_functions"),
            "differences_disagreement": disagreement(results.derivatives, "by_finite_differences"),
            "settings": vars(settings),
        },
    )
    console = Console()
    print_results(console, settings, results)
    console.print(sentence, highlight=False)
    console.print(f"Written to {folder.path}", highlight=False)
