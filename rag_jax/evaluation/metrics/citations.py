"""Citation recall and precision of answers (ALCE, Gao et al. 2023).

An answer cites the passages with the highest posterior, p(z|x,y). A judge decides whether a text supports a claim,
`entails(premise, claim)`: a model for natural language inference, or by default whether the text contains the answer.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from rag_jax.errors import InputError
from rag_jax.evaluation.metrics.answers import has_answer
from rag_jax.evaluation.predictions import Prediction
from rag_jax.pipeline.answers import RetrievedPassage

Entails = Callable[[str, str], bool]  # (premise, claim)

TITLE = "Title: "


def contains_claim(premise: str, claim: str) -> bool:
    """Whether one passage of the premise contains the claim, by `has_answer`."""
    passages = premise.removeprefix(TITLE).split(f"\n{TITLE}")
    return any(has_answer(passage, [claim]) for passage in passages)


def has_posterior(prediction: Prediction) -> bool:
    """Whether the passages of a prediction have a posterior: not if none were read, or all were read together."""
    return bool(prediction.passages) and all(passage.posterior is not None for passage in prediction.passages)


def citations(prediction: Prediction, at_least: float) -> list[RetrievedPassage]:
    """The passages with this posterior or a higher one, highest first; the highest alone if no other reaches it.

    Raises `InputError` for a threshold outside (0, 1], and for a prediction without a posterior.
    """
    if not 0 < at_least <= 1:
        raise InputError(f"a posterior of {at_least} or more is no choice; give a threshold above 0, at most 1")
    if not has_posterior(prediction):
        what = "its passages have no posterior to choose citations by"
        raise InputError(f"question {prediction.id!r}: {what}; retrieve passages, and read them one by one")
    ranked = sorted(prediction.passages, key=_posterior, reverse=True)
    return ranked[:1] + [passage for passage in ranked[1:] if _posterior(passage) >= at_least]


def citation_scores(
    predictions: Sequence[Prediction],
    at_least: float,
    entails: Entails = contains_claim,
    claims: Sequence[str] | None = None,
) -> dict[str, Float[np.ndarray, " B"]]:
    """Citation recall and precision of each answer; NaN for an empty answer, and without a posterior.

    Recall is 1 if all cited passages together entail the claim, otherwise 0. Precision is 0 where recall is, otherwise
    the fraction of citations that are not superfluous: one is, if it does not entail the claim alone and the others do.

    Args:
        predictions: the answers with their passages.
        at_least: the threshold of `citations`.
        entails: the judge. The premise is `Title: …`, a line feed and the text, passage after passage, as in ALCE.
        claims: what each answer states; None: the answer as it stands. A model as judge needs a sentence, such as the
            question followed by the answer (ALCE's for lists).
    """
    if claims is None:
        claims = [prediction.answer for prediction in predictions]
    if len(claims) != len(predictions):
        raise InputError(f"{len(claims)} claims for {len(predictions)} answers; give one claim per answer")
    pairs = [
        _scores(citations(prediction, at_least), claim, entails)
        if prediction.answer.strip() and has_posterior(prediction)
        else (math.nan, math.nan)
        for prediction, claim in zip(predictions, claims, strict=True)
    ]
    recall, precision = np.array(pairs, np.float64).reshape(-1, 2).T
    return {"citation_recall": recall, "citation_precision": precision}


def _scores(cited: Sequence[RetrievedPassage], claim: str, entails: Entails) -> tuple[float, float]:
    """(recall, precision) of one answer."""
    if not entails(_premise(cited), claim):
        return 0.0, 0.0
    if len(cited) == 1:
        return 1.0, 1.0
    needed = 0
    for number, passage in enumerate(cited):
        others = [*cited[:number], *cited[number + 1 :]]
        needed += entails(_premise([passage]), claim) or not entails(_premise(others), claim)
    return 1.0, needed / len(cited)


def _premise(passages: Sequence[RetrievedPassage]) -> str:
    return "\n".join(f"{TITLE}{passage.title}\n{passage.text}" for passage in passages)


def _posterior(passage: RetrievedPassage) -> float:
    return passage.posterior or 0.0
