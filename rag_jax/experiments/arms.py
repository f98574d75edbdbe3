"""Arms of an experiment: the same training with one thing changed, each with every seed."""

from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float

from rag_jax.experiments.runs import Run, train
from rag_jax.experiments.scores import Summary, exact_matches, summarise
from rag_jax.experiments.setup import Setup
from rag_jax.rag import RAG

Arm = TypeVar("Arm", bound=Hashable)


class Measured(NamedTuple):
    """The results of an arm."""

    matches: Float[np.ndarray, "S B"]  # exact match of each seed's answers
    facts: list[float]  # means over the seeds

    @property
    def summary(self) -> Summary:
        """The exact match over seeds and questions."""
        return summarise(self.matches)


def runs_of(setup: Setup, arms: Sequence[Arm], run_of: Callable[[Arm, int], Run]) -> list[Run]:
    """A run for each arm and seed."""
    return [run_of(arm, seed) for seed in range(setup.seeds) for arm in arms]


def measure_arms(
    setup: Setup,
    arms: Sequence[Arm],
    run_of: Callable[[Arm, int], Run],
    facts_of: Callable[[Run, RAG], Sequence[float]],
) -> dict[Arm, Measured]:
    """Train each arm with each seed, and measure what came of it on the questions of the setup.

    Args:
        run_of: the run of an arm and a seed.
        facts_of: what is measured of a trained run beside its answers.
    """
    questions = setup.questions()
    matches: dict[Arm, list[np.ndarray]] = {arm: [] for arm in arms}
    facts: dict[Arm, list[Sequence[float]]] = {arm: [] for arm in arms}
    for seed in range(setup.seeds):
        for arm in arms:
            run = run_of(arm, seed)
            rag = train(run)
            matches[arm].append(exact_matches(rag, questions, setup.answers))
            facts[arm].append(facts_of(run, rag))
    return {arm: Measured(np.stack(matches[arm]), np.mean(facts[arm], axis=0).tolist()) for arm in arms}
