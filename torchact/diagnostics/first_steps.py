"""Rules about how a run begins, and the quantities that they judge.

They look at a reading of each of the first steps, and speak in these steps and a few more: later on, networks that
learn well show the same.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence

from torchact.diagnostics.depth import first_over_last, ratios_to_last
from torchact.diagnostics.evidence import DEBUGGER, MEASURED, Evidence, Verdict
from torchact.diagnostics.readings import LayerReading, Reading
from torchact.diagnostics.wording import cure

_SMALLER_STEPS = "Lower the learning rate, or raise it to its value over the first steps (warm-up)."


def initial_variance(evidence: Evidence) -> Iterator[Verdict]:
    """TA204: outputs of layers of one kind whose variances differ much in the first steps."""
    thresholds, reading = evidence.thresholds, evidence.latest
    layers = [layer for layer in reading.learning_layers if layer.activation is None and layer.output.deviation > 0]
    kinds = Counter(layer.kind for layer in layers)
    commonest = max(kinds, key=kinds.__getitem__, default=None)
    of_kind = [layer for layer in layers[:-1] if layer.kind == commonest]  # the last one's is the task's
    variances = {layer.name: layer.output.deviation**2 for layer in of_kind}
    if reading.step >= thresholds.variance_steps or len(variances) < 2:
        return
    ratio = max(variances.values()) / min(variances.values())
    if ratio > thresholds.variance_ratio:
        yield Verdict(
            rule="TA204",
            title="initial-variance",
            severity="info",
            layers=(min(variances, key=variances.__getitem__), max(variances, key=variances.__getitem__)),
            value=ratio,
            threshold=thresholds.variance_ratio,
            window=1,
            explanation=f"The variance of the outputs of {commonest} layers differs by a factor of {ratio:.1e} in the"
            " beginning.",
            suggestion=cure(reading),
            source=f"{DEBUGGER}: PoorWeightInitialization",
        )


def restlessness(readings: Sequence[Reading]) -> float:
    """Return how much the first layer's share of the gradient swings: the standard deviation of log(‖δ^1‖/‖δ^L‖).

    NaN where one of them is 0 or missing.
    """
    shares = [first_over_last(reading) for reading in readings]
    if not shares or not all(0 < share < math.inf for share in shares):
        return math.nan
    return statistics.pstdev(map(math.log, shares))


def restless(evidence: Evidence) -> Iterator[Verdict]:
    """TA106: under SGD and its kind, a first of many layers whose share of the gradient swings from step to step."""
    readings, limit = evidence.beginning(), evidence.thresholds.restlessness_sgd
    swing, layers = restlessness(readings), evidence.latest.learning_layers
    many = len(layers) >= evidence.thresholds.restless_layers
    if evidence.family != "sgd" or not swing > limit or not many:
        return
    first = layers[0].name
    if not any(layer.has_zero_weights for layer in readings[0].layers):  # such ones have to change
        yield Verdict(
            rule="TA106",
            title="restless",
            severity="warning",
            layers=(first,),
            value=swing,
            threshold=limit,
            window=len(readings),
            explanation=f"Over the first {len(readings)} steps the ratio of the first layer's gradient ({first}) to the"
            f" last layer's swings by a factor of {math.exp(swing):.2g} (its standard deviation, on a log scale):"
            " the steps change the network more than its gradients foresee.",
            suggestion=_SMALLER_STEPS,
            source=MEASURED,
        )


def output_ratio(readings: Sequence[Reading], patience: int) -> float:
    """Return the deviation of the last layer's output, the largest of the last ``patience``, over that of the first.

    NaN where no output was seen, or the first one has no deviation.
    """
    return _end_over_start([layers[-1].output.deviation for layers in _learning(readings)], patience)


def shrinking_output(evidence: Evidence) -> Iterator[Verdict]:
    """TA205: under SGD and its kind, outputs that shrink to a fraction of the first ones while the loss hardly falls.

    Where the loss falls, as of a regression that began too high, so does the gradient of the last layer.
    """
    thresholds, readings = evidence.thresholds, evidence.beginning()
    ratio = output_ratio(readings, thresholds.patience)
    gradients = [layers[-1].gradient.norm for layers in _learning(readings)]
    lasts = _end_over_start(gradients, thresholds.patience) >= thresholds.output_gradient_ratio_sgd
    if evidence.family == "sgd" and ratio < thresholds.output_ratio_sgd and lasts:
        last = evidence.latest.learning_layers[-1].name
        yield Verdict(
            rule="TA205",
            title="shrinking-output",
            severity="warning",
            layers=(last,),
            value=ratio,
            threshold=thresholds.output_ratio_sgd,
            window=len(readings),
            explanation=f"Within {len(readings)} steps the deviation of the last layer's output ({last}) fell to"
            f" {ratio:.2g} of what it was, while its gradient did not fall like that: the network comes to answer all"
            " its inputs alike.",
            suggestion=_SMALLER_STEPS,
            source=MEASURED,
        )


def _learning(readings: Sequence[Reading]) -> list[tuple[LayerReading, ...]]:
    return [reading.learning_layers for reading in readings if reading.learning_layers]


def _end_over_start(values: Sequence[float], patience: int) -> float:
    """Return the largest of the last few over the first; NaN where that is 0, or there is none."""
    return max(values[-patience:]) / values[0] if values and values[0] > 0 else math.nan


def lasting_ratios(readings: Sequence[Reading], patience: int) -> dict[str, float]:
    """Return ‖δ^l‖/‖δ^L‖ of each layer, the largest of the last ``patience`` readings; none where one is 0."""
    ratios = [ratios_to_last(reading) for reading in readings[-patience:]]
    names = ratios[-1] if ratios else ()
    return {name: max(of[name] for of in ratios) for name in names if all(of.get(name, 0) > 0 for of in ratios)}


def first_growth(readings: Sequence[Reading], patience: int) -> float:
    """Return by what factor ‖δ^1‖/‖δ^L‖ grew, the largest of the last ``patience`` readings over that of the first.

    NaN where there is none.
    """
    shares = [first_over_last(reading) for reading in readings]
    if not shares or not all(0 < share < math.inf for share in (*shares[:patience], *shares[-patience:])):
        return math.nan
    return max(shares[-patience:]) / max(shares[:patience])


def stalled(evidence: Evidence) -> Iterator[Verdict]:
    """TA102: under an adaptive optimiser, a faint gradient that does not grow as one that is going to learn would."""
    thresholds, readings = evidence.thresholds, evidence.beginning()
    ratios = lasting_ratios(readings, thresholds.patience)
    if evidence.family != "adaptive" or not ratios:
        return
    growth = first_growth(readings, thresholds.patience)
    first, faintest = next(iter(ratios)), min(ratios, key=ratios.__getitem__)
    if (
        ratios[faintest] < thresholds.faint_ratio_adaptive
        and thresholds.first_ratio_adaptive <= ratios[first] < thresholds.passed_ratio  # below, another rule speaks
        and growth < thresholds.first_growth_adaptive
    ):
        yield Verdict(
            rule="TA102",
            title="vanishing",
            severity="warning",
            layers=tuple(dict.fromkeys((first, faintest))),
            value=ratios[faintest],
            threshold=thresholds.faint_ratio_adaptive,
            window=len(readings),
            explanation=f"The gradient of {faintest} is {ratios[faintest]:.1e} of the last layer's, and the first"
            f" layer's ({first}, {ratios[first]:.1e}) has not grown over the first {len(readings)} steps, as it does"
            " where an adaptive optimiser makes up for that: the network learns late or not at all.",
            suggestion=cure(evidence.latest),
            source=MEASURED,
        )
