"""How far values and derivatives are from the float64 reference, in ULP, beside torch's own.

Of the half types it takes all inputs, of float32 as many as asked for, evenly spread over the bit patterns. Expected
before measuring, from a script: half a ULP where the reference is evaluated in float64 and rounded once, up to 2 where
torch's float32 kernels run, and for some of torch's own thousands near 0 and in the tails.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table
from torch import Tensor

from benchmarks.counterparts import WRITTEN, Function, functions
from benchmarks.ulp import error_in_ulp, inputs, random_pairs, random_rows, ulp, value_and_gradients
from torchact import catalogue, functional
from torchact.catalogue import CATALOGUE, SURROGATES, Activation

#: The types that are measured.
DTYPES = torch.bfloat16, torch.float16, torch.float32
BEGIN, END = "<!-- tables: begin -->\n", "<!-- tables: end -->\n"

#: Parameters to measure besides the usual ones.
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "hardtanh": [{"min_val": -2.0, "max_val": 3.0}],
    "leaky_relu": [{"negative_slope": 0.3}, {"negative_slope": -0.5}],
    "prelu": [{"weight": -1.5}],
    "rrelu": [{"lower": 0.1, "upper": 0.5}],
    "threshold": [{"threshold": 1.0, "value": -2.5}],
    "elu": [{"alpha": 1.5}],
    "celu": [{"alpha": 1.5}],
    "softplus": [{"beta": 2.0}, {"beta": 0.5, "threshold": 5.0}],
    "swish": [{"beta": 0.5}, {"beta": -1.3}],
    "gelu": [{"approximate": "tanh"}],
    "softshrink": [{"lambd": 1.25}],
    "hardshrink": [{"lambd": 1.25}],
    "sine": [{"omega": 1.0}],
    "snake": [{"alpha": 0.7}],
    "binary_step": [{"surrogate": name} for name in SURROGATES],
    "geglu": [{"approximate": "tanh"}],
    "swiglu": [{"alpha": 1.702, "limit": 7.0, "offset": 1.0}],
}


Operands = tuple[Tensor, ...]


def _plain_results(function: Function, operands: Operands) -> Operands:
    return value_and_gradients(function, operands)


def _plain_errors(results: Operands, expected: Operands, operands: Operands) -> Operands:
    return tuple(error_in_ulp(*pair) for pair in zip(results, expected, strict=True))


@dataclass(frozen=True)
class Case:
    """What is measured of an activation: quantities, by two functions of the same operands, against a reference."""

    activation: Activation
    name: str
    counterpart: str  #: what ``theirs`` is, for the table
    ours: Function
    theirs: Function | None
    quantities: tuple[str, ...]
    operands: Callable[[torch.dtype, int], Iterator[Operands]]  #: in chunks
    reference: Callable[..., Operands]  #: the quantities, of operands in float64
    results: Callable[[Function, Operands], Operands] = _plain_results  #: the quantities by one of the functions
    errors: Callable[[Operands, Operands, Operands], Operands] = _plain_errors  #: of results, reference, operands

    def __str__(self) -> str:
        return self.name

    def bound(self, dtype: torch.dtype) -> tuple[float, float]:
        """Return the greatest errors that are promised of values and of derivatives, in ULP."""
        if dtype is not torch.float32:
            return 1, 1
        if self.activation.kind != "elementwise" or len(self.quantities) > 2:
            return 5, 5
        return (4 if self.name == "gelu" else 2), 4


def _identified(record: Activation, chosen: Mapping[str, Any]) -> tuple[Activation, str, str]:
    """Return the record, its name with the parameters that were chosen, and what torchact is compared with."""
    name = ", ".join([record.key, *(f"{parameter}={value}" for parameter, value in chosen.items())])
    if record.key in WRITTEN:
        return record, name, WRITTEN[record.key][0]
    if record.torch_function is None:
        return record, name, "-"
    place = "torch" if record.torch_function is getattr(torch, record.key, None) else "F"
    return record, name, f"{place}.{record.key}"


def _with_number(function: Function, weight: float) -> Function:
    """Return PReLU with a number for its weight."""
    return lambda x: function(x, torch.tensor(weight, dtype=x.dtype))


def _elementwise(record: Activation, chosen: Mapping[str, Any]) -> Case:
    parameters = {**record.parameters, **chosen}
    both = functions(record, **parameters)
    if record.key == "prelu":
        both = _with_number(functional.prelu, **parameters), _with_number(F.prelu, **parameters)
    return Case(
        *_identified(record, chosen),
        *both,
        quantities=("value", "derivative"),
        operands=lambda dtype, count: ((x,) for x in inputs(dtype, count)),
        reference=lambda x: (record.value(x, **parameters), record.derivative(x, **parameters)),
    )


def _learnable(record: Activation) -> Case:
    assert record.pair is not None
    assert record.learnable is not None
    pair = record.pair

    def reference(x: Tensor, parameter: Tensor) -> Operands:
        by_x, by_parameter = pair.partials(x, parameter)
        return pair.value(x, parameter), by_x, by_parameter.view_as(parameter)

    return Case(
        *_identified(record, {record.learnable: "learnt"}),
        *functions(record),
        quantities=("value", "by x", f"by {record.learnable}"),
        operands=_with_parameters,
        reference=reference,
    )


def _with_parameters(dtype: torch.dtype, count: int) -> Iterator[Operands]:
    """Yield inputs, a channel each, and for every channel a parameter between -4 and 4 that is not 0."""
    generator = torch.Generator().manual_seed(0)
    for x in inputs(dtype, count):
        parameter = torch.rand(x.shape, generator=generator) * 8 - 4
        yield x[None], torch.where(parameter.abs() < 0.01, 1.0, parameter).to(dtype)


def _gated(record: Activation, chosen: Mapping[str, Any]) -> Case:
    assert record.pair is not None
    parameters = {**record.parameters, **chosen}
    del parameters["dim"], parameters["gate"]
    function, theirs = functions(record, **parameters)
    pair = record.pair
    return Case(
        *_identified(record, chosen),
        lambda v, g: function(v, other=g),
        theirs,
        quantities=("value", "by v", "by g"),
        operands=lambda dtype, count: random_pairs(dtype, min(count, 2**20)),
        reference=lambda v, g: (
            pair.value(v, g, *parameters.values()),
            *pair.partials(v, g, *parameters.values()),
        ),
    )


def _normalised(record: Activation) -> Case:
    dim = {"dim": -1} if "dim" in record.parameters else {}

    def results(function: Function, operands: Operands) -> Operands:
        x, grad_output = operands if dim else (operand[..., None, None] for operand in operands)
        return tuple(result.view_as(operands[0]) for result in value_and_gradients(function, (x,), grad_output))

    return Case(
        *_identified(record, {}),
        *functions(record, **dim),
        quantities=("value", "gradient"),
        operands=lambda dtype, count: random_rows(dtype, min(count, 2**20) // 8),
        reference=lambda *operands: results(record.value, operands),
        results=results,
        errors=_errors_of_log_softmax if record.key == "log_softmax" else _errors_of_softmax,
    )


def _errors_of_softmax(results: Operands, expected: Operands, operands: Operands) -> Operands:
    # Every x - max is rounded, to float32 at best, and exp magnifies that rounding |x - max| times.
    y = expected[0]
    magnified = torch.xlogy(y, y.amax(-1, keepdim=True)) - torch.xlogy(y, y)
    inevitable = torch.finfo(torch.float32).eps / 2 * (magnified + y * magnified.sum(-1, keepdim=True))
    value = error_in_ulp(results[0], y) - inevitable / ulp(y, results[0].dtype)
    return value.clamp_(min=0), _errors_of_gradient(results[1], expected[1], operands[1])


def _errors_of_log_softmax(results: Operands, expected: Operands, operands: Operands) -> Operands:
    unit = ulp(expected[0].abs().clamp(min=1), results[0].dtype)
    value = error_in_ulp(results[0], expected[0], unit)
    return value, _errors_of_gradient(results[1], expected[1], operands[1])


def _errors_of_gradient(gradient: Tensor, expected: Tensor, grad_output: Tensor) -> Tensor:
    row = grad_output.abs().sum(-1, keepdim=True).double().clamp_(min=1)
    return error_in_ulp(gradient, expected, ulp(row, gradient.dtype))


def _with_variants(build: Callable[[Activation, Mapping[str, Any]], Case], kind: str) -> list[Case]:
    records = [record for record in CATALOGUE.values() if record.kind == kind]
    return [build(record, chosen) for record in records for chosen in [{}, *VARIANTS.get(record.key, [])]]


ELEMENTWISE = _with_variants(_elementwise, "elementwise")
LEARNABLE = [_learnable(record) for record in CATALOGUE.values() if record.learnable]
GATED = _with_variants(_gated, "gated")
NORMALISED = [_normalised(record) for record in CATALOGUE.values() if record.kind == "normalised"]
SECTIONS = {
    "Elementwise": ELEMENTWISE,
    "With a learnable parameter": LEARNABLE,
    "Gated": GATED,
    "Normalised": NORMALISED,
}


@dataclass
class Worst:
    """The greatest of many errors in ULP, where it was, and how many were beyond the bound or NaN."""

    error: float = 0.0
    where: tuple[float, ...] = ()
    beyond: int = 0
    nan: int = 0

    def update(self, errors: Tensor, bound: float, operands: Operands) -> None:
        """Take in the errors of results at these operands."""
        greatest, index = errors.flatten().max(0)
        if bool(greatest.isnan()):
            self.nan += int(errors.isnan().sum())
            greatest, index = errors.flatten().nan_to_num(-1).max(0)
        if float(greatest) > bound:
            self.beyond += int((errors > bound).sum())
        if float(greatest) > self.error:
            self.error = float(greatest)
            self.where = tuple(float(operand.flatten()[index]) for operand in operands)

    def __str__(self) -> str:
        at = f" at {', '.join(f'{number:.4g}' for number in self.where)}" if self.where else ""
        counts = [f"{count} {what}" for count, what in ((self.beyond, "beyond"), (self.nan, "NaN")) if count]
        return "; ".join([f"{self.error:.3g}{at}", *counts])


def measure(case: Case, dtype: torch.dtype, count: int) -> list[list[Worst]]:
    """Return the worst errors of each quantity by torchact, and by the counterpart if there is one.

    Args:
        case: what to measure.
        dtype: of the operands.
        count: how many operands at most.
    """
    both = [function for function in (case.ours, case.theirs) if function is not None]
    worst = [[Worst() for _ in both] for _ in case.quantities]
    of_value, of_derivative = case.bound(dtype)
    bounds = [of_value] + [of_derivative] * (len(worst) - 1)
    for operands in case.operands(dtype, count):
        expected = case.reference(*(operand.double() for operand in operands))
        for i, function in enumerate(both):
            errors = case.errors(case.results(function, operands), expected, operands)
            for of_quantity, error, bound in zip(worst, errors, bounds, strict=True):
                of_quantity[i].update(error, bound, operands if case.activation.kind != "normalised" else ())
    return worst


def _row(case: Case, worst: list[list[Worst]]) -> list[str]:
    cells = [str(result) for of_quantity in worst for result in (*of_quantity, "-")[:2]]
    return [case.name, case.counterpart, *cells]


def _header(case: Case) -> list[str]:
    return ["activation", "torch", *(f"{quantity}{of}" for quantity in case.quantities for of in ("", " of torch"))]


def tables(only: Sequence[str], count: int) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    """Yield (title, header, rows) for every section and dtype in which there is something to measure."""
    keys = {catalogue.get(name, "only").key for name in only} or set(CATALOGUE)
    for section, cases in SECTIONS.items():
        chosen = [case for case in cases if case.activation.key in keys]
        for dtype in DTYPES if chosen else ():
            title = f"{section}, {str(dtype).removeprefix('torch.')}"
            described = track(chosen, title, console=Console(stderr=True), transient=True)
            yield title, _header(chosen[0]), [_row(case, measure(case, dtype, count)) for case in described]


def main(only: tuple[str, ...] = (), float32_inputs: int = 2**24, write: Path | None = None) -> None:
    """Print the tables.

    Args:
        only: the activations to measure, by default all.
        float32_inputs: how many inputs in float32.
        write: the page whose tables to replace, docs/accuracy.md.
    """
    torch.set_num_threads(1)
    page = f"By `python -m benchmarks {' '.join(sys.argv[1:])}`, torch {torch.__version__}.\n"
    for title, header, rows in tables(only, float32_inputs):
        table = Table(*header, title=title)
        for row in rows:
            table.add_row(*map(escape, row))
        Console().print(table)
        page += _markdown(title, header, rows)
    if write is not None:
        before, rest = write.read_text(encoding="utf-8").split(BEGIN)
        write.write_text(f"{before}{BEGIN}{page}{END}{rest.split(END)[1]}", encoding="utf-8")


def _markdown(title: str, header: list[str], rows: list[list[str]]) -> str:
    rows = [[f"`{name}`", f"`{counterpart}`", *cells] for name, counterpart, *cells in rows]
    return f"\n### {title}\n\n" + "".join(f"| {' | '.join(row)} |\n" for row in (header, ["---"] * len(header), *rows))
