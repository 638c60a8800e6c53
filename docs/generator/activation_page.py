"""The page of one activation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F

from docs.generator.curves import Curve
from docs.generator.families import family_of
from docs.generator.markdown import linked, table
from docs.generator.saturation import number
from torchact.catalogue import SURROGATES, Activation
from torchact.diagnostics import Thresholds

_MEANING = (
    "It saturates, or is nearly flat on a bounded interval, where the derivative's magnitude is below "
    f"{Thresholds().saturated_slope:.1%} of the steepest slope. It is dead where the derivative is exactly 0 on an "
    "interval. [How that was found](index.md)."
)


def page(activation: Activation, curve: Curve, flatness: Mapping[str, str]) -> str:
    """Return the page in Markdown.

    Args:
        activation: the record that it is about.
        curve: its curve.
        flatness: where it saturates and dies, in words.
    """
    called = f"Also called {', '.join(activation.aliases)}. " if activation.aliases else ""
    family = family_of(activation)
    sections = [
        f"# {activation.name}",
        f"{called}Family: [{family.name}](#{family.anchor}).",
        f"## Formula\n\n$$\n{activation.formula}\n$$",
        f"## Derivative\n\n$$\n{activation.derivative_formula}\n$$",
        f"## Plot\n\n{_plot(activation, curve)}",
        f"## Properties\n\n{table(_properties(activation, curve, flatness), 'stub-columns: 1', 'widths: 25 75')}",
        _MEANING,
    ]
    if "surrogate" in activation.parameters:
        sections.append(f"## Surrogate derivatives\n\n{table(_surrogates(), 'header-rows: 1')}")
    return "\n\n".join(sections) + "\n"


def _plot(activation: Activation, curve: Curve) -> str:
    low, high = map(number, curve.window)
    alternative = f"{activation.name} and its derivative for {low} ≤ {curve.variable} ≤ {high}"
    images = "\n".join(
        f"```{{image}} {picture(activation, theme)}\n:alt: {alternative}\n:class: only-{theme}\n:width: 100%\n```"
        for theme in ("light", "dark")
    )
    usual = " with the usual parameters" if activation.parameters else ""
    return f"{images}\n\nValue and derivative{usual}{f', {curve.setting}' if curve.setting else ''}."


def picture(activation: Activation, theme: str) -> str:
    """Return the name of the file with the plot for a light or a dark page."""
    return f"{activation.key}-{theme}.svg"


def _properties(activation: Activation, curve: Curve, flatness: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    low, high = map(number, activation.range)
    yield "Range", f"from {low} to {high}"
    yield "Monotone", "yes" if activation.monotone else "no"
    yield "Steepest slope", "unbounded" if curve.steepest == torch.inf else number(curve.steepest)
    for property, where in flatness.items():
        yield property.capitalize(), where
    if curve.kinks:
        yield "Kinks", _kinks(curve)
    if usual := _parameters(activation):
        learnable = f"; as a tensor, `{activation.learnable}` is learnt" if activation.learnable else ""
        yield "Usual parameters", f"{usual}{learnable}"
    yield "Saved for backward", f"the {activation.saves}" if activation.saves != "nothing" else "nothing"
    module = f"{{py:class}}`torchact.{activation.name} <torchact.modules.{activation.name}>`"
    yield "In torchact", f"{{py:func}}`torchact.functional.{activation.key}`, {module}"
    yield "In torch", counterparts(activation)
    yield "Source", linked(activation.source)


def _parameters(activation: Activation) -> str:
    return ", ".join(f"`{name}={_short(usual)}`" for name, usual in activation.parameters.items())


def _short(usual: object) -> str:
    return f"{usual:.4g}" if isinstance(usual, float) else repr(usual)


def _kinks(curve: Curve) -> str:
    slopes = curve.slope(torch.tensor(curve.kinks, dtype=torch.float64)).tolist()
    return "; ".join(
        f"{curve.variable} = {number(kink)}, where the derivative is taken as {number(slope)}"
        for kink, slope in zip(curve.kinks, slopes, strict=True)
    )


def counterparts(activation: Activation) -> str:
    """Return links to torch's own function and module, or "none"."""
    functions = [
        f"{{py:func}}`{home.__name__}.{name}`"
        for home in (F, torch)
        for name in activation.functional_spellings
        if activation.torch_function is not None and getattr(home, name, None) is activation.torch_function
    ]
    modules = [f"{{py:class}}`torch.nn.{activation.torch_module.__name__}`"] if activation.torch_module else []
    return ", ".join(functions[:1] + modules) or "none"


def _surrogates() -> Iterator[tuple[str, str, str]]:
    yield "`surrogate=`", "Derivative", "Source"
    for surrogate in SURROGATES.values():
        yield f'`"{surrogate.key}"`', f"${surrogate.derivative_formula}$", linked(surrogate.source)
