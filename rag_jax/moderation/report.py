"""What moderating a file leaves: figures where the texts have labels, a table, and the threshold curve."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float

from rag_jax.errors import InputError
from rag_jax.evaluation.figures import as_png, new_figure
from rag_jax.evaluation.intervals import CONFIDENCE, RESAMPLES, Figure, figure
from rag_jax.evaluation.metrics import detection
from rag_jax.moderation.categories import Categories

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

METRICS, TABLE, CURVE = "metrics.json", "table.md", "thresholds.png"
FILES = METRICS, TABLE, CURVE
Row = Mapping[str, Any]  # a decision as a line of decisions.jsonl


def check_labels(labels: Sequence[str], categories: Categories, acceptable: str | None) -> None:
    """Raise `InputError` for a label that is no category.

    Args:
        acceptable: the label of acceptable texts, beside which any other is one to be moderated; None: the labels are
            the categories' names.
    """
    if acceptable is None:
        if odd := [label for label in labels if label not in categories.names]:
            known = ", ".join(categories.names)
            remedy = "name the acceptable one, --acceptable-label, if the others are all to be moderated"
            raise InputError(f"label {odd[0]!r}: is none of the categories {known}; {remedy}")
    elif acceptable not in labels:
        raise InputError(f"--acceptable-label is {acceptable!r}, which no text has; the labels are {sorted({*labels})}")


def figures(
    rows: Sequence[Row], labels: Sequence[str], categories: Categories, acceptable: str | None
) -> dict[str, Figure]:
    """Precision, recall, F1 and average precision: of all texts to be moderated, then of each category.

    Detected is a text whose policy is not "pass"; with a category's own figures, one whose most likely moderated
    category reaches its threshold and is this one. The score of the first is 1 - p(acceptable).
    """
    count, found = len(rows), {}

    def add(prefix: str, positive: Bool[np.ndarray, " B"], detected: Bool[np.ndarray, " B"], score: np.ndarray) -> None:
        statistics = {
            "precision": detection.precision(positive, detected),
            "recall": detection.recall(positive, detected),
            "f1": detection.f1(positive, detected),
            "average_precision": detection.average_precision(positive, score),
        }
        for name, statistic in statistics.items():
            found[f"{prefix}{name}"] = figure(statistic, count)

    positive, score = is_positive(labels, categories, acceptable), scores(rows, categories)
    chosen = np.array([row["category"] for row in rows])
    add("", positive, chosen != categories.acceptable, score)
    found["accuracy"] = figure(lambda n: float(np.mean((positive == (chosen != categories.acceptable))[n])), count)
    if acceptable is None and len(categories.moderated) > 1:
        for each in categories.moderated:
            own = np.array([row["probabilities"][each.name] for row in rows])
            add(f"{each.name}: ", np.array(labels) == each.name, chosen == each.name, own)
    return found


def is_positive(labels: Sequence[str], categories: Categories, acceptable: str | None) -> Bool[np.ndarray, " B"]:
    """Whether each text is labelled as one to be moderated."""
    return np.array(labels) != (categories.acceptable if acceptable is None else acceptable)


def scores(rows: Sequence[Row], categories: Categories) -> Float[np.ndarray, " B"]:
    """1 - p(acceptable) of each text."""
    return np.array([1 - row["probabilities"][categories.acceptable] for row in rows])


def threshold_curve(positive: Bool[np.ndarray, " B"], score: Float[np.ndarray, " B"]) -> bytes:
    """Precision, recall and F1 against the threshold on 1 - p(acceptable), as the contents of a .png file."""
    return as_png(_drawing(detection.curve(positive, score)))


def metrics_json(facts: Mapping[str, Any], found: Mapping[str, Figure]) -> str:
    """`metrics.json`: what was moderated and how, and every figure with its interval."""
    values = {name: {key: _finite(value) for key, value in each._asdict().items()} for name, each in found.items()}
    interval = f"percentile bootstrap over texts, {CONFIDENCE:.0%}, {RESAMPLES:,} resamples"
    return json.dumps({**facts, "interval": interval, "figures": values}, indent=2) + "\n"


def markdown(title: str, facts: Mapping[str, Any], found: Mapping[str, Figure]) -> str:
    """`table.md`: the figures as a table, and the counts of policies and categories."""
    lines = [f"# {title}", "", "| metric | value | 95 % interval | texts |", "|---|---:|---:|---:|"] if found else []
    for name, each in found.items():
        interval = "" if math.isnan(each.low) else f"{each.low:.3f} to {each.high:.3f}"
        lines.append(f"| {name} | {_shown(each.value)} | {interval} | {each.questions:,} |")
    told = (f"- {name.replace('_', ' ')}: {json.dumps(value, ensure_ascii=False)}" for name, value in facts.items())
    return "\n".join([*lines, "", *told]) + "\n"


def _drawing(found: detection.Curve) -> "Drawing":
    drawing = new_figure(figsize=(5, 4), layout="constrained")
    axes = drawing.subplots()
    f1 = 2 * found.precision * found.recall / np.maximum(found.precision + found.recall, 1e-12)
    for name, values in (("precision", found.precision), ("recall", found.recall), ("F1", f1)):
        axes.step(found.threshold, values, where="pre", label=name)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="threshold on 1 - p(acceptable)")
    axes.legend()
    return drawing


def _shown(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3f}"


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value
