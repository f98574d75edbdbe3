"""Paired comparisons of systems that answered the same questions.

The difference d_i is a system's score on question i minus that of the reference. The interval of its mean is that of
the paired bootstrap (`intervals`). If neither system is better, the sign of each difference is random:

    p = P(|sum_i s_i d_i| >= |sum_i d_i|),    s_i = 1 or -1, with probability 1/2 each

This is the paired permutation test, or Fisher's randomisation test (Noreen 1989; Smucker et al. 2007 in retrieval, Dror
et al. 2018 in language processing). Interval and p describe other questions of the same kind, not other training runs.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from rag_jax.errors import InputError
from rag_jax.evaluation.intervals import Figure, mean_figure
from rag_jax.evaluation.score_file import OPTIONS, Evaluation

RESAMPLES = 10_000
PREFERRED_METRICS = ("exact_match", "f1")
REMEDY = "evaluate both with the same options, or choose another --metric"
OF_GOLD = ("mrr", "map")  # metrics by gold passages, beside recall@k and ndcg@k
SAME = 1e-9  # scores that differ by less are equal: rounding errors are neither wins nor losses
SIGNS_AT_ONCE = 2**19  # bounds the memory of the permutation test

Evaluations = Mapping[str, Evaluation]  # by the system's name; the first is the reference


class PValue(NamedTuple):
    """A p-value, and whether it is exact instead of estimated from random signs."""

    value: float
    exact: bool


class Comparison(NamedTuple):
    """A system beside a reference, by one metric and on the questions to which it applies."""

    metric: str
    system: str
    reference: str
    system_mean: float
    reference_mean: float
    difference: Figure  # of the means, system minus reference
    wins: int  # questions with a higher score than the reference's
    ties: int
    losses: int
    p: PValue
    corrected_p: float  # for the number of comparisons


def compare_systems(
    evaluations: Evaluations,
    metrics: Sequence[str],
    all_pairs: bool = False,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[Comparison]:
    """Compare every system with the first, or with each one before it if `all_pairs`.

    Args:
        evaluations: of the same questions, as `read_evaluations` returns them.
        metrics: those to compare by, as `common_metrics` returns them.
        all_pairs: whether to compare all pairs.
        resamples: of the bootstrap and of the permutation test.
        seed: of both.

    Returns:
        One comparison for every metric and pair. Their p-values are corrected together with the procedure of Benjamini
        and Hochberg (1995), which bounds the expected fraction of false discoveries.
    """
    pairs = system_pairs(evaluations, all_pairs)
    found = [_compare(evaluations, metric, pair, resamples, seed) for metric in metrics for pair in pairs]
    corrected = stats.false_discovery_control([each.p.value for each in found], method="bh")
    return [each._replace(corrected_p=float(p)) for each, p in zip(found, corrected, strict=True)]


def permutation_test(differences: Float[np.ndarray, " B"], resamples: int = RESAMPLES, seed: int = 0) -> PValue:
    """The two-sided p-value of paired differences under random signs.

    Zeros change no sum and are left out. With m others, the p-value is exact where they all have the same size (for a
    metric that is 0 or 1 this is McNemar's exact test) and where 2^m <= `resamples`. Otherwise it is estimated, and
    is then 2 / (`resamples` + 1) or more.
    """
    nonzero = differences[differences != 0].astype(np.float64)
    sizes = np.abs(nonzero)
    if len(nonzero) < 2:
        return PValue(1.0, True)
    if np.ptp(sizes) < SAME:
        return PValue(float(stats.binomtest(int((nonzero > 0).sum()), len(nonzero)).pvalue), True)
    tested = stats.permutation_test(
        (nonzero / sizes.max(),),
        # Rounded, so that equal sums of different terms are equal.
        lambda signed, axis: np.round(np.sum(signed, axis=axis), 9),
        permutation_type="samples",
        vectorized=True,
        n_resamples=resamples,
        batch=max(1, SIGNS_AT_ONCE // len(nonzero)),
        rng=np.random.default_rng(seed),
    )
    return PValue(float(tested.pvalue), 2 ** len(nonzero) <= resamples)


def common_metrics(evaluations: Evaluations, asked: Sequence[str] = ()) -> list[str]:
    """The metrics to compare by: those asked for, or exact match and F1 where all have them, or else all in common
    that apply to the same questions.

    Raises `InputError` for a metric that one of them lacks, that applies to no question, or to a question in one of
    them only, and for one of other gold passages or another option.
    """
    first, *others = evaluations.values()
    common = [name for name in first.scores if all(name in other.scores for other in others)]
    for name in asked:
        if name not in common:
            lacking = next(each.path for each in evaluations.values() if name not in each.scores)
            raise InputError(f"{lacking}: has no {name!r}; metrics in common are {', '.join(common) or 'none'}")
        if np.isnan(first.scores[name]).all():
            raise InputError(f"{first.path}: {name!r} applies to no question; choose another metric")
    known = [name for name in common if not np.isnan(first.scores[name]).all()]
    pairs = list(combinations(evaluations.values(), 2))
    obstacles = {name: next(filter(None, (_obstacle(name, *pair) for pair in pairs)), None) for name in known}
    same = [name for name in known if obstacles[name] is None]
    chosen = list(dict.fromkeys(asked)) or [name for name in PREFERRED_METRICS if name in known] or same or known
    if not chosen:
        raise InputError(f"{first.path}: has no metric in common with the others; evaluate all with the same options")
    if found := next((obstacle for name in chosen if (obstacle := obstacles[name]) is not None), None):
        raise InputError(found)
    return chosen


def most_different(evaluations: Evaluations, metrics: Sequence[str], count: int, all_pairs: bool = False) -> list[int]:
    """The numbers of the questions that differ most between systems, at most `count` of them.

    They are ordered by the absolute difference, mean over the metrics and the pairs compared, then by id. Questions
    without a difference are left out; a metric that does not apply to a question counts as no difference.
    """
    pairs = system_pairs(evaluations, all_pairs)
    sizes = [np.abs(_differences(evaluations, metric, pair)) for metric in metrics for pair in pairs]
    mean = np.round(np.nan_to_num(np.stack(sizes)).mean(axis=0), 9)
    order = np.argsort(-mean, kind="stable")[:count]
    return [int(number) for number in order if mean[number] > 0]


def system_pairs(names: Sequence[str] | Evaluations, all_pairs: bool) -> list[tuple[str, str]]:
    """The (reference, system) pairs to compare."""
    first, *others = names
    return list(combinations(names, 2)) if all_pairs else [(first, other) for other in others]


def _compare(evaluations: Evaluations, metric: str, pair: tuple[str, str], resamples: int, seed: int) -> Comparison:
    reference, system = pair
    differences = _differences(evaluations, metric, pair)
    known = differences[~np.isnan(differences)]
    p = permutation_test(known, resamples, seed)
    return Comparison(
        metric=metric,
        system=system,
        reference=reference,
        system_mean=float(np.nanmean(evaluations[system].scores[metric])),
        reference_mean=float(np.nanmean(evaluations[reference].scores[metric])),
        difference=mean_figure(known, resamples, seed),
        wins=int((known > 0).sum()),
        ties=int((known == 0).sum()),
        losses=int((known < 0).sum()),
        p=p,
        corrected_p=p.value,
    )


def _differences(evaluations: Evaluations, metric: str, pair: tuple[str, str]) -> Float[np.ndarray, " B"]:
    """System minus reference on every question; NaN where the metric does not apply."""
    reference, system = pair
    differences = evaluations[system].scores[metric] - evaluations[reference].scores[metric]
    return np.where(np.abs(differences) < SAME, 0.0, differences)


def _obstacle(metric: str, first: Evaluation, other: Evaluation) -> str | None:
    """Why a metric of two evaluations cannot be compared, as far as that is known; None: it can.

    It means another thing with another option or other gold passages, or applies to a question on one side only.
    """
    there = f"in {first.path}; {REMEDY}"
    option = OPTIONS.get(metric, "")
    values = [each.options.get(option) for each in (first, other)]
    if None not in values and values[0] != values[1]:
        return f"{other.path}: {metric!r} with {option} {values[1]}, and {values[0]} {there}"
    if metric in OF_GOLD or metric.startswith(("recall@", "ndcg@")):
        pairs = zip(first.questions, other.questions, strict=True)
        odd = (b.id for a, b in pairs if a.positive_ids and b.positive_ids and {*a.positive_ids} != {*b.positive_ids})
        if (id := next(odd, None)) is not None:
            return f'{other.path}: {metric!r} with other gold passages of "{id}" than {there}'
    is_odd = np.isnan(first.scores[metric]) != np.isnan(other.scores[metric])
    return _applies_once(metric, first, other, np.flatnonzero(is_odd)) if is_odd.any() else None


def _applies_once(metric: str, first: Evaluation, other: Evaluation, odd: Int[np.ndarray, " odd"]) -> str:
    """That the metric applies to the questions of these numbers in one evaluation only."""
    number = int(odd[0])
    null, scored = (first, other) if np.isnan(first.scores[metric][number]) else (other, first)
    question, same = null.questions[number], scored.questions[number]
    what = f'{metric!r} is null for "{question.id}", but a number in {scored.path}:{same.line}'
    total = f" ({len(odd):,} such questions)" if len(odd) > 1 else ""
    return f"{null.path}:{question.line}: {what}{total}; {REMEDY}"
