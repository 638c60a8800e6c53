"""The page that lists the activations by family and says what the words on their pages mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from docs.generator.families import Family, families
from docs.generator.markdown import table
from torchact.catalogue import CATALOGUE
from torchact.diagnostics import Thresholds

_INTRODUCTION = f"""\
# The activations

Each has a page with its formula and derivative, a plot of both, and what to know before it goes into a deep network.

Saturated
: |φ′| stays below {Thresholds().saturated_slope:.1%} of its largest value towards −∞ or ∞: next to nothing of a
  gradient passes. {{py:class}}`~torchact.GradientMonitor` draws the line at the same fraction.

Nearly flat
: |φ′| is below that fraction on a bounded interval.

Dead
: φ′ is exactly 0 on an interval: no gradient passes.

The intervals were computed in float64 from the derivative in {{py:mod}}`torchact.catalogue`, with the usual parameters,
at every 1/128 as far as ±1000, and for those without an end also at ±10⁴, ±10⁶ and ±10⁹. For gated units the derivative
is that by the gate g where v = 1, for normalising ones that of the first of two classes with the logits (x, 0)."""


def index(flatness: Mapping[str, Mapping[str, str]]) -> str:
    """Return the page in Markdown.

    Args:
        flatness: where each activation saturates and dies, in words, by its key.
    """
    sections = [_INTRODUCTION]
    for family in families():
        rows = table(_rows(family, flatness), "header-rows: 1", "widths: auto")
        sections.append(f"({family.anchor})=\n\n## {family.name.capitalize()}\n\n{family.description}\n\n{rows}")
    sections.append("\n".join(["```{toctree}", ":hidden:", "", *CATALOGUE, "```"]))
    return "\n\n".join(sections) + "\n"


def _rows(family: Family, flatness: Mapping[str, Mapping[str, str]]) -> Iterator[tuple[str, ...]]:
    yield "Activation", "Formula", "Saturates", "Dead"
    for activation in family.activations:
        words = flatness[activation.key]
        yield (
            f"[{activation.name}]({activation.key}.md)",
            f"${_head(activation.formula)}$",
            words["saturates"],
            words["dead"],
        )


def _head(formula: str) -> str:
    """Return a formula without what it says of its parameters."""
    return formula.partition(r", \quad")[0]
