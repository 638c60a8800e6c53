"""How well verdicts of the first steps foretell that a run will not learn: confusions, intervals, fitted thresholds."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import pandas as pd

from experiments.calibrate_runs import RULE_NAMES
from torchact.diagnostics import Thresholds, first_steps, rules
from torchact.diagnostics.evidence import Family, Rule

LEARNED = 0.5  #: training accuracy from which a run counts as having learned; chance is 0.1
RECALL, PRECISION = 0.9, 0.95  #: what is to be reached
_Z = 1.959963985  # normal quantile of a 95 % interval

#: A detector says of each run whether it foretells that it will not learn.
Detector = Callable[[pd.DataFrame], pd.Series]


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """What was foretold against what came; "positive" means: will not learn."""

    caught: int  #: foretold, and did not learn
    false_alarms: int  #: foretold, but learned
    missed: int  #: not foretold, and did not learn
    passed: int  #: not foretold, and learned

    @property
    def recall(self) -> float:
        """Fraction of the runs that did not learn that was foretold; NaN where all learned."""
        return _fraction(self.caught, self.caught + self.missed)

    @property
    def precision(self) -> float:
        """Fraction of what was foretold that came; NaN where nothing was."""
        return _fraction(self.caught, self.caught + self.false_alarms)

    @property
    def recall_interval(self) -> tuple[float, float]:
        """Its 95 % interval."""
        return wilson(self.caught, self.caught + self.missed)

    @property
    def precision_interval(self) -> tuple[float, float]:
        """Its 95 % interval."""
        return wilson(self.caught, self.caught + self.false_alarms)

    @property
    def f1(self) -> float:
        """Harmonic mean of recall and precision."""
        return _fraction(2 * self.caught, 2 * self.caught + self.false_alarms + self.missed)

    @property
    def reached(self) -> bool:
        """Whether recall and precision are what was to be reached."""
        return self.recall >= RECALL and self.precision >= PRECISION


def _fraction(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a proportion (Wilson 1927), NaN where there were no trials.

    Example:
        >>> [round(end, 3) for end in wilson(9, 10)]
        [0.596, 0.982]
    """
    if not trials:
        return math.nan, math.nan
    share, weight = successes / trials, _Z**2 / trials
    centre = share + weight / 2
    reach = _Z * math.sqrt(share * (1 - share) / trials + weight / (4 * trials))
    return (centre - reach) / (1 + weight), (centre + reach) / (1 + weight)


def confusion(foretold: pd.Series, failed: pd.Series) -> Confusion:
    """Count runs by what was foretold (will not learn) and what came (did not learn)."""
    return Confusion(
        caught=int((foretold & failed).sum()),
        false_alarms=int((foretold & ~failed).sum()),
        missed=int((~foretold & failed).sum()),
        passed=int((~foretold & ~failed).sum()),
    )


def not_learned(runs: pd.DataFrame, limit: float = LEARNED) -> pd.Series:
    """Return which runs did not learn; one that diverged did not, whatever its accuracy."""
    return ~(runs["accuracy"] >= limit) | (runs["status"] != "finished")


def speaks(runs: pd.DataFrame, rule: str) -> pd.Series:
    """Return in which runs a rule, by its column, fired at a severity above info."""
    return runs[rule].isin(["warning", "error"])


def combined(runs: pd.DataFrame) -> pd.Series:
    """Return in which runs one of ``FORETELLING`` spoke, or TA303 as an error."""
    return combined_but()(runs)


def combined_but(*left_out: str) -> Detector:
    """Return the combined verdict without some rules, by their columns."""

    def detector(runs: pd.DataFrame) -> pd.Series:
        zero = runs["rule_zero_gradient"] == "error"
        heard = (speaks(runs, rule) for rule in FORETELLING if rule not in left_out)
        return functools.reduce(operator.or_, heard, zero)

    return detector


def combined_with(detector: Detector, rule: str) -> Detector:
    """Return the combined verdict with another detector in place of a rule, by its column."""
    return lambda runs: detector(runs) | combined_but(rule)(runs)


def below(threshold: float, column: str = "ratio") -> Detector:
    """Return the detector that fires where a quantity is below a number.

    The default one is that of the vanishing rule, which does not warn where the gradient gets past the faint layers.
    """

    def detector(runs: pd.DataFrame) -> pd.Series:
        faint = runs[column] < threshold
        return faint & ~(runs["first_to_last"] >= Thresholds().passed_ratio) if column == "ratio" else faint

    return detector


def of_first_steps(family: Family) -> list[tuple[str, dict[str, Detector]]]:
    """Return by the columns of rules of the first steps what they are with their thresholds, and with others."""
    thresholds = Thresholds()
    if family == "sgd":
        swing, shrunk = thresholds.restlessness_sgd, thresholds.output_ratio_sgd
        return [
            ("rule_restless", {f"restlessness > {t:.2f}": _above(t, "restlessness") for t in _around(swing)}),
            ("rule_shrinking_output", {f"output ratio < {t:.2f}": below(t, "output_ratio") for t in _around(shrunk)}),
        ]
    faint, growth = thresholds.faint_ratio_adaptive, thresholds.first_growth_adaptive
    ratios = {f"faint ratio < {t:.1e}, growth < {growth:.2f}": _stalled(t, growth) for t in _around(faint)}
    return [("rule_stalled", ratios | {f"faint ratio < {faint:.1e}": _stalled(faint, math.inf)})]


def _around(threshold: float) -> tuple[float, float, float]:
    return 0.8 * threshold, threshold, 1.25 * threshold


def _above(threshold: float, column: str) -> Detector:
    return lambda runs: runs[column] > threshold


def _stalled(faint: float, growth: float) -> Detector:
    least = Thresholds().first_ratio_adaptive  # below which another rule speaks
    return lambda runs: below(faint)(runs) & (runs["first_growth"] < growth) & (runs["first_to_last"] >= least)


def _label(rule: Rule) -> str:
    """Return a rule's ids, which its docstring begins with, and its name."""
    ids = (rule.__doc__ or "").partition(":")[0].replace(" and ", "/")
    return f"{ids} {rule.__name__.replace('_', ' ')}"


def _speaking(column: str) -> Detector:
    return lambda runs: speaks(runs, column)


#: The rules that foretell that a network will not learn, where they warn or worse, with their names in the tables by
#: their columns. TA303 does as an error alone.
FORETELLING: Mapping[str, str] = MappingProxyType(
    {
        RULE_NAMES[rule]: _label(rule)
        for rule in (
            *(rules.non_finite, rules.vanishing, rules.faint_first_layer, first_steps.stalled, rules.at_epsilon),
            *(first_steps.restless, first_steps.shrinking_output, rules.small_steps),
        )
    }
)

#: Each rule by itself, by what it is called in the tables.
RULES: Mapping[str, Detector] = MappingProxyType({_label(rule): _speaking(name) for rule, name in RULE_NAMES.items()})

#: What other tools go by, with their thresholds.
COMPARISONS: Mapping[str, Detector] = MappingProxyType(
    {
        "mean of a weight's |∂L/∂W| < 1e-7 (SageMaker Debugger)": lambda runs: runs["mean_gradient"] < 1e-7,
        "‖∂L/∂W‖ of the first layer < 1e-4, and < 1e-3 of the last one's (AUTOTRAINER)": lambda runs: (
            (runs["first_weight_gradient"] < 1e-4) & (runs["weight_gradient_ratio"] < 1e-3)
        ),
    }
)


#: What the rules, and the lines to compare with, go by.
QUANTITIES = (
    *("ratio", "first_to_last", "decay", "at_epsilon", "saturated", "restlessness", "output_ratio", "first_growth"),
    *("variance_ratio", "mean_gradient", "first_weight_gradient", "weight_gradient_ratio"),
)


def boosted(runs: pd.DataFrame) -> Detector:
    """Return the detector that gradient boosting makes of all quantities of these runs: what could be had of them.

    It does not know the kind of network, its depth, nor the optimiser.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier  # takes a second to import, and --help does not need it

    def finite(of: pd.DataFrame) -> pd.DataFrame:
        return of[list(QUANTITIES)].astype(float).replace([math.inf, -math.inf], math.nan)

    model = HistGradientBoostingClassifier(max_iter=150, learning_rate=0.07, max_leaf_nodes=8, random_state=0)
    model.fit(finite(runs), not_learned(runs))
    return lambda others: pd.Series(model.predict(finite(others)), index=others.index, dtype=bool)


def fitted_threshold(runs: pd.DataFrame, column: str = "ratio") -> float:
    """Return the threshold of a quantity with the highest F1 among those with enough precision on these runs.

    It lies, on a log scale, in the middle of the gap between two runs. NaN where no threshold has enough precision.
    """
    failed = not_learned(runs)
    values = np.unique(runs[column][runs[column] > 0].dropna().to_numpy(float))
    middles = np.exp((np.log(values[:-1]) + np.log(values[1:])) / 2)
    best = max(
        ((confusion(below(middle, column)(runs), failed), float(middle)) for middle in middles),
        key=lambda scored: (scored[0].precision >= PRECISION, np.nan_to_num(scored[0].f1), scored[1]),
        default=None,
    )
    return best[1] if best and best[0].precision >= PRECISION else math.nan
