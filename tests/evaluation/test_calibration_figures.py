"""The reliability diagram and the risk-coverage curve."""

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="figures need the demo extra")

from rag_jax.evaluation import calibration_figures
from rag_jax.evaluation.metrics.calibration import reliability, risk_coverage

P, CORRECT = np.array([0.15, 0.9, 0.95]), np.array([0.0, 1.0, 0.0])


def test_the_diagram_has_a_bar_for_each_bin() -> None:
    bars, counts = calibration_figures.reliability_diagram(reliability(P, CORRECT)).axes
    heights = [bar.get_height() for bar in bars.patches]
    assert [(n, h) for n, h in enumerate(heights) if not np.isnan(h)] == [(1, 0.0), (8, 1.0), (9, 0.0)]
    assert sum(bar.get_height() for bar in counts.patches) == 3


def test_each_curve_is_named_as_it_stands() -> None:
    curves = {"_$rag$": risk_coverage(P, CORRECT), "one": risk_coverage(P[:1], CORRECT[:1])}
    (axes,) = calibration_figures.risk_coverage_curves(curves).axes
    assert [line.get_ydata().tolist() for line in axes.lines] == [curve.risk.tolist() for curve in curves.values()]
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == [f"AURC {curve.risk.mean():.3f}: {name}" for name, curve in curves.items()]


def test_files_are_drawn() -> None:
    drawn = calibration_figures.of("run", P, CORRECT)
    assert tuple(drawn) == calibration_figures.FILES
    assert all(data.startswith(b"\x89PNG") for data in drawn.values())
