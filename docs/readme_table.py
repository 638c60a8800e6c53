"""Writes the README's table of activations from the catalogue: ``python docs/readme_table.py``."""

from __future__ import annotations

import math
from pathlib import Path

from torchact import catalogue
from torchact.catalogue import Activation

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- activations: begin -->\n", "<!-- activations: end -->\n"


def table() -> str:
    """Return the table in Markdown, a row an activation in the catalogue's order."""
    rows = [
        ("function, module", "formula", "range", "backward keeps", "in torch"),
        ("---",) * 5,
        *map(_row, catalogue.CATALOGUE.values()),
    ]
    return "".join(f"| {' | '.join(map(_escaped, row))} |\n" for row in rows)


def with_table(readme: str) -> str:
    """Return the README's text with the table between its markers replaced."""
    before, rest = readme.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}{table()}{END}{after}"


def _row(activation: Activation) -> tuple[str, ...]:
    counterpart = activation.torch_module
    return (
        f"`{activation.key}`, `{activation.name}`",
        f"${activation.formula}$",
        f"{_bound(activation.range[0])} … {_bound(activation.range[1])}",
        _kept(activation),
        f"`nn.{counterpart.__name__}`" if counterpart else "",
    )


def _kept(activation: Activation) -> str:
    if activation.kind == "gated":
        return "both halves"
    return "nothing" if activation.saves == "nothing" else f"the {activation.saves}"


def _escaped(cell: str) -> str:
    """Return a cell without bars, which end it: in a formula they are magnitudes."""
    return cell.replace("|x|", r"\lvert x \rvert ")


def _bound(value: float) -> str:
    return ("∞" if value > 0 else "−∞") if math.isinf(value) else f"{value:g}"


if __name__ == "__main__":
    README.write_text(with_table(README.read_text(encoding="utf-8")), encoding="utf-8")
