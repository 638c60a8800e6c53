"""How gradients change with depth: the decay per layer, and how many layers a number format has room for."""

from __future__ import annotations

import math
import statistics as descriptive
from collections import Counter
from dataclasses import dataclass

import torch

from torchact.diagnostics.readings import LayerReading, Reading

_T_OF_FEW = {1: 12.706204736, 2: 4.302652730}  # Student's t for 95 %, where the expansion below is too coarse
FORMATS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class Decay:
    """The factor by which ‖δ‖ changes from one layer to the one before it, going backward."""

    factor: float  #: below 1 gradients vanish, above 1 they explode; NaN where there are too few layers
    low: float  #: lower end of its 95 % confidence interval; NaN with two layers, which any line meets
    high: float  #: upper end
    layers: int  #: how many layers it was fitted to


def decay_per_layer(reading: Reading) -> float:
    """Return the factor of the decay that :func:`.depth.decay` fits."""
    return decay(reading).factor


def decay(reading: Reading) -> Decay:
    """Fit the decay of a reading.

    It is exp of the slope of a least-squares line through log‖δ‖ against depth, over the layers with parameters whose
    outputs have the commonest shape (others differ for that reason alone), or over all of them where no shape repeats.
    An activation that learns its own parameter is no layer of its own. The interval is Student's, for independent
    deviations from the line. NaN with fewer than two layers whose gradient is positive and finite.
    """
    candidates = [layer for layer in reading.learning_layers if layer.activation is None]
    layers = [entry for entry in enumerate(candidates) if 0 < entry[1].gradient.norm < math.inf]
    shapes = Counter(layer.shape for _, layer in layers)
    commonest, count = shapes.most_common(1)[0] if shapes else ((), 0)
    if count > 1:
        layers = [(position, layer) for position, layer in layers if layer.shape == commonest]
    if len(layers) < 2:
        return Decay(factor=math.nan, low=math.nan, high=math.nan, layers=len(layers))
    return _fitted([position for position, _ in layers], [math.log(layer.gradient.norm) for _, layer in layers])


def _fitted(positions: list[int], heights: list[float]) -> Decay:
    slope, intercept = descriptive.linear_regression(positions, heights)
    freedom = len(positions) - 2
    reach = math.nan
    if freedom:
        residuals = sum((y - intercept - slope * x) ** 2 for x, y in zip(positions, heights, strict=True))
        spread = descriptive.pvariance(positions) * len(positions)
        reach = _students_t(freedom) * math.sqrt(residuals / freedom / spread)
    return Decay(
        factor=math.exp(-slope), low=math.exp(-slope - reach), high=math.exp(-slope + reach), layers=len(positions)
    )


def _students_t(freedom: int) -> float:
    """Return the 97.5 % quantile of Student's t, to 0.2 % (Abramowitz and Stegun 26.7.5)."""
    if freedom in _T_OF_FEW:
        return _T_OF_FEW[freedom]
    z = descriptive.NormalDist().inv_cdf(0.975)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return sum(term / freedom**power for power, term in enumerate(terms))


def first_over_last(reading: Reading) -> float:
    """Return ‖δ‖ of the first layer with parameters over that of the last; NaN where the latter is 0 or missing.

    What "the last" is, :func:`ratios_to_last` says.
    """
    layers = reading.learning_layers
    return ratios_to_last(reading).get(layers[0].name, math.nan) if layers else math.nan


def layers_until_underflow(reading: Reading) -> dict[str, float]:
    """Return, by number format, behind how many layers the gradient falls below the smallest normal number.

    Counted from the last layer backward, by the root mean square of its δ and the decay per layer: infinite where that
    is not below 1, and NaN where there is none.
    """
    layers, factor = reading.learning_layers, decay_per_layer(reading)
    size = layers[-1].gradient.root_mean_square if layers else math.nan
    if math.isnan(factor) or not 0 < size < math.inf:
        return dict.fromkeys(FORMATS, math.nan)
    if factor >= 1:
        return dict.fromkeys(FORMATS, math.inf)
    return {
        name: max(0.0, math.log(torch.finfo(dtype).smallest_normal / size) / math.log(factor))
        for name, dtype in FORMATS.items()
    }


def ratios_to_last(reading: Reading) -> dict[str, float]:
    """Return ‖δ‖ of each layer with parameters over that of the last one, by name; none where that is 0.

    The last one is the one that was called last. Of a model with several heads those stand in its place that the layer
    leads to, with ‖δ‖ of all of them together: one by itself may weigh next to nothing in the loss.
    """
    layers: tuple[LayerReading, ...] = reading.learning_layers
    norms = {layer.name: layer.gradient.norm for layer in layers}
    ratios = {}
    for layer in layers:
        heads = [norms[head] for head in layer.heads if head in norms]
        last = math.hypot(*heads) if heads else layers[-1].gradient.norm
        if last > 0:
            ratios[layer.name] = layer.gradient.norm / last
    return ratios
