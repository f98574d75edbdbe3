"""Figures of calibration: the reliability diagram and the risk-coverage curve."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from rag_jax.evaluation.figures import as_png, new_figure
from rag_jax.evaluation.metrics.calibration import Bin, RiskCoverage, reliability, risk_coverage

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FILES = RELIABILITY, RISK_COVERAGE = "reliability.png", "risk_coverage.png"


def of(name: str, p: Float[np.ndarray, " B"], correct: Float[np.ndarray, " B"]) -> dict[str, bytes]:
    """Both figures of one model's answers, as the contents of files."""
    curve = risk_coverage_curves({name: risk_coverage(p, correct)})
    return {RELIABILITY: as_png(reliability_diagram(reliability(p, correct))), RISK_COVERAGE: as_png(curve)}


def reliability_diagram(table: Sequence[Bin]) -> "Figure":
    """The accuracy in each bin of probabilities, and how many answers each bin has (Guo et al. 2017, figure 1).

    Bars on the diagonal are calibrated; lower ones are overconfident.
    """
    figure = new_figure(figsize=(4.5, 5.5), layout="constrained")
    bars, counts = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    middles, widths = [(each.low + each.high) / 2 for each in table], [each.high - each.low for each in table]
    bars.bar(middles, [each.accuracy for each in table], widths, edgecolor="white")
    bars.plot((0, 1), (0, 1), color="gray", linestyle="--")
    bars.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy")
    counts.bar(middles, [each.questions for each in table], widths, color="gray", edgecolor="white")
    counts.set(xlabel="probability of the answer", ylabel="answers")
    return figure


def risk_coverage_curves(curves: Mapping[str, RiskCoverage]) -> "Figure":
    """Risk-coverage curves by name: the fraction of wrong answers if only the most probable ones are given."""
    figure = new_figure(figsize=(5, 4), layout="constrained")
    axes = figure.subplots()
    for name, curve in curves.items():
        axes.plot(curve.coverage, curve.risk, label=f"AURC {curve.risk.mean():.3f}: {name}")
    axes.set(xlim=(0, 1), ylim=(0, None), xlabel="coverage: questions answered", ylabel="risk: wrong among them")
    for label in axes.legend().get_texts():
        label.set_parse_math(False)
    return figure
