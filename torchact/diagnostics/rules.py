"""Pure functions from what was measured to verdicts. The thresholds stand in one frozen dataclass.

Layers are judged by δ = ∂L/∂output and not by ∂L/∂W: in ReLU networks without biases ⟨W, ∂L/∂W⟩ is the same in every
layer, so that ‖∂L/∂W‖ looks flat while δ fades by many orders of magnitude.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch

from torchact import catalogue
from torchact.diagnostics import depth
from torchact.diagnostics.depth import decay_per_layer
from torchact.diagnostics.evidence import (
    AUTOTRAINER,
    DEBUGGER,
    DEEP_CHECKER,
    DEEP_DIAGNOSIS,
    MEASURED,
    Evidence,
    Family,
    Rule,
    Severity,
    Thresholds,
    Verdict,
)
from torchact.diagnostics.first_steps import initial_variance, restless, shrinking_output, stalled
from torchact.diagnostics.readings import LayerReading, Reading
from torchact.diagnostics.wording import cure, names, these

__all__ = ["RULES", "judge"]

_FLOAT32_TINY = torch.finfo(torch.float32).tiny
_GETS_PAST = " It gets to the first layer by another way, so that the network may learn all the same."
_FRAMES = 20  # readings that a verdict keeps


def judge(
    readings: Reading | Sequence[Reading],
    family: Family = "sgd",
    thresholds: Thresholds | None = None,
    rules: Sequence[Rule] | None = None,
    functional: tuple[str, ...] = (),
) -> tuple[Verdict, ...]:
    """Apply rules to the readings of a run, of which the last is judged.

    Args:
        readings: what steps showed, oldest first; or one reading.
        family: of the optimiser that uses the gradients.
        thresholds: other thresholds than the default ones.
        rules: by default ``RULES``.
        functional: activations that the model calls as functions.
    """
    evidence = Evidence(
        readings=(readings,) if isinstance(readings, Reading) else tuple(readings),
        family=family,
        thresholds=thresholds or Thresholds(),
        functional=functional,
    )
    verdicts = tuple(verdict for rule in (RULES if rules is None else rules) for verdict in rule(evidence))
    whose = evidence.latest.optimizer
    return tuple(dataclasses.replace(verdict, optimizer=whose) for verdict in verdicts) if whose else verdicts


def non_finite(evidence: Evidence) -> Iterator[Verdict]:
    """TA001: NaN and infinity, the first output forward that has any, and the first δ backward."""
    reading = evidence.latest
    forward = [layer for layer in reading.layers if layer.output.non_finite]
    backward = [layer for layer in reversed(reading.layers) if layer.gradient.non_finite]
    if not forward and not backward:
        return
    said = []
    for where, direction, layers in (("output", "forward", forward), ("gradient", "backward", backward)):
        if layers:
            count = layers[0].output.non_finite if where == "output" else layers[0].gradient.non_finite
            said.append(
                f"The {where} of {layers[0].name} has {count:.0f} NaN or infinite values, first of all {direction}."
            )
    first = (forward or backward)[0]
    yield Verdict(
        rule="TA001",
        title="non-finite",
        severity="error",
        layers=tuple(layer.name for layer in forward or backward),
        value=first.output.non_finite or first.gradient.non_finite,
        threshold=0.0,
        window=1,
        explanation=" ".join(said),
        suggestion="Lower the learning rate, clip gradients, or look at that layer's input.",
        source=f"{DEBUGGER}: ExplodingTensor",
        readings=evidence.readings[-_FRAMES:],
    )


def zero_gradient(evidence: Evidence) -> Iterator[Verdict]:
    """TA303: layers whose δ is exactly zero, and which kind of zero it is; or in which most entries are."""
    reading, limit = evidence.latest, evidence.thresholds.zero_fraction
    layers = reading.learning_layers
    zero = [layer for layer in layers if layer.gradient.largest == 0]
    behind = [_next_with_gradient(layers, layer) for layer in zero]
    waiting = {
        layer.name: other.name
        for layer, other in zip(zero, behind, strict=True)
        if other.has_zero_weights and other.gradient.largest > 0
    }
    if waiting:
        yield _zero_gradient(
            "info",
            tuple(waiting),
            f"{these([layer for layer in zero if layer.name in waiting], layers)} not learn yet: the gradient there is"
            f" exactly zero, since the weights behind, such as those of {list(waiting.values())[-1]}, are.",
            "Where they were set to zero on purpose, the first steps change that.",
        )
    stuck = [layer for layer in zero if layer.name not in waiting]
    if stuck:
        explanation, suggestion = _kind_of_zero(reading, stuck[-1])
        explanation = f"{these(stuck, layers)} not learn: the gradient there is exactly zero. {explanation}"
        yield _zero_gradient("error", tuple(layer.name for layer in stuck), explanation, suggestion)
    fractions = {layer.name: min(_weights_zero(layer), layer.gradient.zero_fraction) for layer in layers}
    sparse = [layer for layer in layers if layer not in zero and fractions[layer.name] >= limit]
    if sparse:
        yield _zero_gradient(
            "warning",
            tuple(layer.name for layer in sparse),
            f"In {names(sparse)} at least {limit:.0%} of δ, and of the parameters' gradients, are zero.",
            "Look for dead units behind them.",
            (max(fractions[layer.name] for layer in sparse), limit),
        )


def _zero_gradient(
    severity: Severity,
    layers: tuple[str, ...],
    explanation: str,
    suggestion: str,
    measured: tuple[float, float] = (0.0, 0.0),
) -> Verdict:
    return Verdict(
        rule="TA303",
        title="zero-gradient",
        severity=severity,
        layers=layers,
        value=measured[0],
        threshold=measured[1],
        window=1,
        explanation=explanation,
        suggestion=suggestion,
        source=AUTOTRAINER,
    )


def _next_with_gradient(layers: Sequence[LayerReading], layer: LayerReading) -> LayerReading:
    """Return the next layer that has a gradient; the last one, if none has."""
    return next((other for other in layers if other.index > layer.index and other.gradient.largest > 0), layers[-1])


def _weights_zero(layer: LayerReading) -> float:
    """Fraction of the layer's parameter gradients that are exactly zero."""
    gradients = layer.parameter_gradients.values()
    count = sum(gradient.count for gradient in gradients)
    return sum(gradient.zeros for gradient in gradients) / count if count else 0.0


def _kind_of_zero(reading: Reading, last_zero: LayerReading) -> tuple[str, str]:
    """Tell a structural zero from dead units and from underflow, by what lies behind the last layer that has it."""
    behind = [layer for layer in reading.layers if layer.index > last_zero.index]
    activation = next((layer for layer in behind if layer.activation), None)
    record = _record(activation) if activation else None
    if activation and record and activation.gradient.largest > 0 and _all_flat(activation, record):
        if record.max_derivative() == 0:
            return (
                f"It is a structural zero: the derivative of {activation.kind} ({activation.name}) is zero everywhere.",
                "Choose a surrogate derivative, or an activation that has one.",
            )
        if _passes_far_inputs_only(record):
            return (
                f"All units of {activation.kind} ({activation.name}) shrink their inputs to nothing.",
                "Use larger initial weights, or let the activation shrink less.",
            )
        return (
            f"All units of {activation.kind} ({activation.name}) are dead or saturated.",
            "Lower the learning rate or the initial biases, or take an activation with two live sides.",
        )
    smallest = min((layer.gradient.norm for layer in behind if layer.gradient.norm > 0), default=math.inf)
    if smallest < _FLOAT32_TINY * 1e3:
        return (
            f"It has underflowed: behind it, the gradient is {smallest:.1e}.",
            "Use another activation or initialisation.",
        )
    return "Nothing behind it passes a gradient back.", "Look for a detached or unused branch."


def _all_flat(layer: LayerReading, activation: catalogue.Activation) -> bool:
    """Whether no input has a derivative to speak of; of a gated unit, whether every gate is shut."""
    if activation.kind == "gated":
        return layer.output.zero_fraction == 1.0
    return layer.saturated_fraction == 1.0


def vanishing(evidence: Evidence) -> Iterator[Verdict]:
    """TA101 and TA102: layers whose ‖δ‖ is a small fraction of the last layer's, several readings running."""
    thresholds, adaptive = evidence.thresholds, evidence.family == "adaptive"
    readings = evidence.running(thresholds.patience, thresholds.warm_up)
    early = not readings
    readings = readings or (evidence.latest,)
    threshold = thresholds.vanishing_ratio(evidence.family)
    ratios = [depth.ratios_to_last(reading) for reading in readings]
    layers = evidence.latest.learning_layers
    faded = [layer for layer in layers if all(0 < of.get(layer.name, 0) < threshold for of in ratios)]
    if not faded:
        return
    ratio = min(ratios[-1][layer.name] for layer in faded)
    worst = all(min(of[layer.name] for layer in faded) < thresholds.vanishing_ratio_sgd_error for of in ratios)
    passed = max(of.get(layers[0].name, 0) for of in ratios) >= thresholds.passed_ratio
    yield Verdict(
        rule="TA102" if adaptive else "TA101",
        title="vanishing",
        severity="info" if early or passed else "error" if adaptive or worst else "warning",
        layers=tuple(layer.name for layer in faded),
        value=ratio,
        threshold=threshold,
        window=len(readings),
        explanation=f"{these(faded, layers)} not learn{'' if not early else ', if it stays like this'}: the gradient"
        f" there is down to {ratio:.1e} of the last layer's and changes by a factor of"
        f" {decay_per_layer(evidence.latest):.2g} a layer going backward."
        f"{_GETS_PAST if passed else ''}",
        suggestion=cure(evidence.latest),
        source=MEASURED,
    )


def faint_first_layer(evidence: Evidence) -> Iterator[Verdict]:
    """TA102: under an adaptive optimiser, a first layer whose ‖δ‖ stays a small fraction of the last layer's."""
    limit = evidence.thresholds.first_ratio_adaptive
    readings = evidence.running(evidence.thresholds.patience, evidence.thresholds.warm_up)
    ratios = [depth.first_over_last(reading) for reading in readings]
    if evidence.family == "adaptive" and ratios and all(0 < ratio < limit for ratio in ratios):
        first = evidence.latest.learning_layers[0].name
        yield Verdict(
            rule="TA102",
            title="vanishing",
            severity="warning",
            layers=(first,),
            value=ratios[-1],
            threshold=limit,
            window=len(readings),
            explanation=f"The gradient of the first layer ({first}) is {ratios[-1]:.1e} of the last layer's, which"
            " rescaling does not make up for: the network learns late or not at all.",
            suggestion=cure(evidence.latest),
            source=MEASURED,
        )


def at_epsilon(evidence: Evidence) -> Iterator[Verdict]:
    """TA102: layers whose gradients are so small that an adaptive optimiser's ε keeps it from rescaling them."""
    limit = evidence.thresholds.at_epsilon_fraction
    layers = evidence.latest.layers if evidence.latest.step >= evidence.thresholds.warm_up else ()
    stuck = [layer for layer in layers if _at_epsilon(layer) >= limit]
    if stuck:
        yield Verdict(
            rule="TA102",
            title="vanishing",
            severity="error",
            layers=tuple(layer.name for layer in stuck),
            value=max(map(_at_epsilon, stuck)),
            threshold=limit,
            window=1,
            explanation=f"{these(stuck, evidence.latest.learning_layers)} not learn: √v̂ of most of their entries"
            f" is within {evidence.thresholds.epsilons:g} times the optimiser's ε, which then sets the step's size.",
            suggestion=cure(evidence.latest),
            source="Kingma and Ba 2015, arXiv:1412.6980, algorithm 1",
        )


def _at_epsilon(layer: LayerReading) -> float:
    """Fraction of the entries that have a gradient; those of silent units have none, and a √v̂ of zero for it."""
    known = [p for p in layer.parameters.values() if p.at_epsilon is not None]
    entries = sum(p.gradient.count - p.gradient.zeros for p in known)
    near = sum(max(0.0, (p.at_epsilon or 0) * p.gradient.count - p.gradient.zeros) for p in known)
    return near / entries if entries else 0.0


def decay(evidence: Evidence) -> Iterator[Verdict]:
    """TA104: how the gradient fades with depth, and how far it would reach."""
    measured = depth.decay(evidence.latest)
    if not (measured.factor < evidence.thresholds.decay and measured.high < 1):  # a few layers say nothing
        return
    interval = f" (95 % interval {measured.low:.2g} to {measured.high:.2g})"
    reach = depth.layers_until_underflow(evidence.latest)
    rooms = ", ".join(f"{name} after {layers:.0f}" for name, layers in reach.items() if math.isfinite(layers))
    yield Verdict(
        rule="TA104",
        title="decay",
        severity="info",
        layers=tuple(layer.name for layer in evidence.latest.learning_layers),
        value=measured.factor,
        threshold=evidence.thresholds.decay,
        window=1,
        explanation=f"The gradient changes by a factor of {measured.factor:.2g}{interval} a layer going backward;"
        f" counted from the last layer, numbers run out in {rooms} layers.",
        suggestion=cure(evidence.latest),
        source=MEASURED,
    )


def exploding(evidence: Evidence) -> Iterator[Verdict]:
    """TA105: layers whose ‖δ‖ is a large multiple of the last layer's."""
    reading, limit = evidence.latest, evidence.thresholds.exploding_ratio
    ratios = depth.ratios_to_last(reading)
    grown = [layer for layer in reading.learning_layers if limit < ratios.get(layer.name, 0) < math.inf]
    if grown:
        ratio = max(ratios[layer.name] for layer in grown)
        measured = depth.decay(reading)
        yield dataclasses.replace(
            _exploding(
                evidence,
                tuple(layer.name for layer in grown),
                (ratio, limit, 1),
                f"they are up to {ratio:.1e} times the last layer's and change by a factor of"
                f" {measured.factor:.2g} a layer going backward.",
                AUTOTRAINER,
            ),
            severity="info" if measured.low <= 1 else "warning",
        )


def growth(evidence: Evidence) -> Iterator[Verdict]:
    """TA105: parameter gradients that double from reading to reading, or are far larger than in the beginning."""
    thresholds = evidence.thresholds
    norms = [_total_norm(reading) for reading in evidence.readings]
    last = norms[-(thresholds.growth_patience + 1) :]
    ratios = [after / before if before > 0 else math.nan for before, after in itertools.pairwise(last)]
    if len(ratios) == thresholds.growth_patience and all(ratio >= thresholds.growth for ratio in ratios):
        explanation = (
            f"their norm has grown at least {thresholds.growth:g} times a reading, {len(ratios)} readings running."
        )
        yield _exploding(evidence, (), (min(ratios), thresholds.growth, len(last)), explanation, DEEP_CHECKER)
    early = [norm for norm in norms[: thresholds.burst_readings] if math.isfinite(norm)]
    if len(norms) > thresholds.burst_readings and early and math.inf > norms[-1] > thresholds.burst * max(early):
        ratio = norms[-1] / max(early) if max(early) else math.inf
        explanation = f"their norm is {ratio:.1e} times the largest of the first {thresholds.burst_readings} readings."
        yield _exploding(evidence, (), (ratio, thresholds.burst, len(norms)), explanation, "Megatron-LM, spike rule")


def _exploding(
    evidence: Evidence,
    layers: tuple[str, ...],
    measured: tuple[float, float, int],
    explanation: str,
    source: str,
) -> Verdict:
    return Verdict(
        rule="TA105",
        title="exploding",
        severity="warning",
        layers=layers or tuple(layer.name for layer in evidence.latest.learning_layers),
        value=measured[0],
        threshold=measured[1],
        window=measured[2],
        explanation=f"Gradients explode: {explanation}",
        suggestion="Use smaller initial weights, normalisation layers or gradient clipping.",
        source=source,
    )


def _total_norm(reading: Reading) -> float:
    return math.hypot(*(layer.parameter_gradient_norm for layer in reading.layers if layer.has_parameters))


def dead_units(evidence: Evidence) -> Iterator[Verdict]:
    """TA201: activations most of whose units were never active over a whole window of samples."""
    thresholds = evidence.thresholds
    for layer in evidence.latest.layers:
        fraction = layer.dead_fraction or 0.0
        if fraction > thresholds.dead_fraction:
            yield Verdict(
                rule="TA201",
                title="dead-units",
                severity="warning",
                layers=(layer.name,),
                value=fraction,
                threshold=thresholds.dead_fraction,
                window=1,
                explanation=f"{fraction:.0%} of the units of {layer.kind} ({layer.name}) were not active for a single"
                f" one of the last {thresholds.dead_window} samples or more.",
                suggestion="Lower the learning rate or the initial biases, or take an activation with two live sides.",
                source=DEEP_CHECKER,
            )


def saturation(evidence: Evidence) -> Iterator[Verdict]:
    """TA202: activations most of whose inputs lie where they have levelled off, the derivative being nearly zero."""
    thresholds = evidence.thresholds
    last = max((layer.index for layer in evidence.latest.learning_layers), default=-1)
    for layer in evidence.latest.layers:
        if layer.index > last:  # the model's output, which is to be sure in the end
            continue
        fraction = layer.saturated_fraction or 0.0
        if fraction > thresholds.saturated_fraction and _levels_off(_record(layer), thresholds.saturated_slope):
            yield Verdict(
                rule="TA202",
                title="saturation",
                severity="warning",
                layers=(layer.name,),
                value=fraction,
                threshold=thresholds.saturated_fraction,
                window=1,
                explanation=f"{fraction:.0%} of the inputs of {layer.kind} ({layer.name}) lie where its"
                f" derivative is below {thresholds.saturated_slope:.1%} of its maximum.",
                suggestion="Use smaller initial weights, or normalise the layer's input.",
                source=DEEP_DIAGNOSIS,
            )


def small_steps(evidence: Evidence) -> Iterator[Verdict]:
    """TA301: layers whose steps are too small beside their weights, several readings running.

    Of layers in front of weights that began as zeros they are small at first, and grow as those do.
    """
    limit = evidence.thresholds.update_ratio_low
    ratios = _running_update_ratios(evidence)
    growing = _growing(evidence, ratios)
    outside = [name for name in _in_all(ratios, lambda ratio: ratio < limit) if name not in growing]
    if outside:
        yield _update_ratio(tuple(outside), min(ratios[-1][name] for name in outside), limit, len(ratios))


def large_steps(evidence: Evidence) -> Iterator[Verdict]:
    """TA301: layers whose steps are too large beside their weights, several readings running.

    Of weights that began as zeros the first steps are large.
    """
    limit = evidence.thresholds.update_ratio_high
    ratios = _running_update_ratios(evidence)
    zero_at_first = _zero_at_first(evidence)
    outside = [name for name in _in_all(ratios, lambda ratio: ratio > limit) if name not in zero_at_first]
    if outside:
        yield _update_ratio(tuple(outside), max(ratios[-1][name] for name in outside), limit, len(ratios))


def _update_ratio(layers: tuple[str, ...], extreme: float, limit: float, window: int) -> Verdict:
    small = extreme < limit
    return Verdict(
        rule="TA301",
        title="update-ratio",
        severity="warning",
        layers=layers,
        value=extreme,
        threshold=limit,
        window=window,
        explanation=f"Steps of {layers[0]}{' and others' if layers[1:] else ''} are {extreme:.1e} of their"
        f" weights, {'below' if small else 'above'} {limit:g}.",
        suggestion=f"{'Raise' if small else 'Lower'} the learning rate of these layers.",
        source=DEEP_CHECKER,
    )


def _running_update_ratios(evidence: Evidence) -> list[dict[str, float]]:
    """Return of the readings that must show it each layer's ratio, where it was measured and is not 0."""
    thresholds = evidence.thresholds
    readings = evidence.running(thresholds.update_patience, thresholds.warm_up)
    of_layers = ({layer.name: layer.update_ratio for layer in reading.layers} for reading in readings)
    return [{name: ratio for name, ratio in ratios.items() if ratio is not None and ratio > 0} for ratios in of_layers]


def _in_all(readings: Sequence[Mapping[str, float]], holds: Callable[[float], bool]) -> list[str]:
    """Name what has a number in each of the readings, for all of which something holds."""
    names = readings[-1] if readings else ()
    return [name for name in names if all(name in of and holds(of[name]) for of in readings)]


def _zero_at_first(evidence: Evidence) -> tuple[str, ...]:
    """Name the layers whose weights were zero in the beginning, in forward order."""
    return tuple(layer.name for layer in evidence.readings[0].layers if layer.has_zero_weights)


def _growing(evidence: Evidence, ratios: Sequence[Mapping[str, float]]) -> set[str]:
    """Name the layers in front of weights that began as zeros, whose ratios are larger than at first."""
    zero = _zero_at_first(evidence)
    names = [layer.name for layer in evidence.readings[0].layers]
    in_front = names[: names.index(zero[-1])] if zero else []
    return {name for name in in_front if ratios and ratios[-1].get(name, 0.0) > ratios[0].get(name, 0.0)}


def unchanged(evidence: Evidence) -> Iterator[Verdict]:
    """TA302: parameters that have gradients, and the very same values in several readings running."""
    readings = evidence.running(evidence.thresholds.unchanged_patience)
    layers = [_weights(reading) for reading in readings]
    same = [
        name for name, value in (layers[-1] if layers else {}).items() if all(of.get(name) == value for of in layers)
    ]
    if same and len(readings) > 1:
        yield Verdict(
            rule="TA302",
            title="unchanged",
            severity="error",
            layers=tuple(same),
            value=0.0,
            threshold=0.0,
            window=len(readings),
            explanation=f"The parameters of {same[0]}{' and others' if same[1:] else ''} have gradients and have not"
            f" changed at all between {len(readings)} readings.",
            suggestion="Look whether the optimiser holds them, whether its learning rate is zero, and whether their"
            " gradients are too small to change a number.",
            source=f"{DEBUGGER}: UnchangedTensor",
        )


def _weights(reading: Reading) -> dict[str, tuple[object, ...]]:
    return {
        layer.name: tuple((p.weight.total, p.weight.squares) for p in layer.parameters.values())
        for layer in reading.layers
        if layer.has_parameters
    }


def blind_spots(evidence: Evidence) -> Iterator[Verdict]:
    """TA901: what the monitor cannot see."""
    reading, said = evidence.latest, []
    if reading.unprobed:
        said.append(f"{', '.join(reading.unprobed)} have gradients, but no module that owns them was called.")
    if evidence.functional:
        said.append(f"Computed without a module, where no hook sees it: {', '.join(evidence.functional)}.")
    if said:
        yield Verdict(
            rule="TA901",
            title="blind-spot",
            severity="info",
            layers=reading.silent,
            value=float(len(reading.unprobed) + len(evidence.functional)),
            threshold=0.0,
            window=1,
            explanation=" ".join(said),
            suggestion="Where functions are called, modules in their place are seen.",
            source="torchact",
        )


def _record(layer: LayerReading) -> catalogue.Activation | None:
    """Return what is known of an activation; of a definition that was taken back, nothing is."""
    return catalogue.CATALOGUE.get(layer.activation) if layer.activation else None


def _levels_off(activation: catalogue.Activation | None, saturated_slope: float) -> bool:
    """Whether an activation has a level to saturate at, away from 0.

    One that is unbounded on both sides has none. A rectifier has one, but half the inputs are there by design: it is
    flat right beside 0. Of a softmax over many entries nearly all are small, and their slopes too, by design as well.
    """
    if activation is None or not activation.elementwise:
        return False
    slopes = activation.derivative(torch.tensor([-0.5, 0.5], dtype=torch.float64, device="cpu")).abs()
    bounded = any(map(math.isfinite, activation.range))
    return bounded and bool((slopes > saturated_slope * activation.max_derivative()).all())


def _passes_far_inputs_only(activation: catalogue.Activation) -> bool:
    """Whether φ' is 0 at 0 and large far from it on either side, as of the shrinkages."""
    if not activation.elementwise:
        return False
    places = torch.tensor([-16.0, 0.0, 16.0], dtype=torch.float64, device="cpu")
    left, centre, right = activation.derivative(places).abs().tolist()
    return centre == 0 and min(left, right) > activation.max_derivative() / 2


#: The rules that a monitor applies.
RULES: tuple[Callable[[Evidence], Iterator[Verdict]], ...] = (
    non_finite,
    zero_gradient,
    vanishing,
    faint_first_layer,
    stalled,
    at_epsilon,
    decay,
    exploding,
    growth,
    dead_units,
    saturation,
    initial_variance,
    restless,
    shrinking_output,
    small_steps,
    large_steps,
    unchanged,
    blind_spots,
)
