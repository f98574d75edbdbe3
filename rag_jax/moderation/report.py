"""Results of moderating a file: figures where the texts have labels, a table, and the threshold curve."""

import importlib.metadata
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float

from rag_jax.data import strict_json
from rag_jax.errors import InputError
from rag_jax.evaluation.figures import as_png, new_figure
from rag_jax.evaluation.intervals import CONFIDENCE, RESAMPLES, Figure, figure
from rag_jax.evaluation.metrics import detection
from rag_jax.evaluation.report import METRICS, TABLE, interval, number
from rag_jax.moderation.categories import Categories

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

CURVE = "thresholds.png"
FILES = METRICS, TABLE, CURVE
PACKAGES = "rag-jax", "jax", "flax", "numpy", "scipy"
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
            raise InputError(f"label {odd[0]!r} is not one of the categories {known}; {remedy}")
    elif acceptable not in labels:
        raise InputError(f"--acceptable-label is {acceptable!r}, which no text has; the labels are {sorted({*labels})}")


def figures(
    rows: Sequence[Row], labels: Sequence[str], categories: Categories, acceptable: str | None
) -> dict[str, Figure]:
    """Precision, recall, F1 and average precision: of all texts to be moderated, then of each category.

    A text is detected if its policy is not "pass", and as one of a category if the category's probability reaches its
    threshold. The score of all texts is 1 - p(acceptable), that of a category its probability.
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
    detected = np.array([row["policy"] != "pass" for row in rows])
    add("", positive, detected, score)
    found["accuracy"] = figure(lambda n: float(np.mean((positive == detected)[n])), count)
    if acceptable is None and len(categories.moderated) > 1:
        for each in categories.moderated:
            own = np.array([row["probabilities"][each.name] for row in rows])
            add(f"{each.name}: ", np.array(labels) == each.name, own >= each.threshold, own)
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
    values = {name: each._asdict() for name, each in found.items()}
    kind = f"percentile bootstrap over texts, {CONFIDENCE:.0%}, {RESAMPLES:,} resamples"
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    return strict_json.dumps({**facts, "versions": versions, "interval": kind, "figures": values}, indent=2) + "\n"


def markdown(title: str, facts: Mapping[str, Any], found: Mapping[str, Figure]) -> str:
    """`table.md`: the figures as a table, and the counts of policies and categories."""
    lines = [f"# {title}", "", "| metric | value | 95 % interval | texts |", "|---|---:|---:|---:|"] if found else []
    for name, each in found.items():
        lines.append(f"| {name} | {number(each.value)} | {interval(each)} | {each.questions:,} |")
    listed = [
        f"- {name.replace('_', ' ')}: {strict_json.dumps(fact, ensure_ascii=False)}" for name, fact in facts.items()
    ]
    return "\n".join([*lines, "", *listed]) + "\n"


def _drawing(found: detection.Curve) -> "Drawing":
    drawing = new_figure(figsize=(5, 4), layout="constrained")
    axes = drawing.subplots()
    f1 = 2 * found.precision * found.recall / np.maximum(found.precision + found.recall, 1e-12)
    for name, values in (("precision", found.precision), ("recall", found.recall), ("F1", f1)):
        axes.step(found.threshold, values, where="pre", label=name)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="threshold on 1 - p(acceptable)")
    axes.legend()
    return drawing
