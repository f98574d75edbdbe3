"""Index hot-swapping: knowledge is updated by replacing the index, without training (Lewis et al. 2020, section 4.5).

The same trained model answers from two versions of the world. It should know the facts of the version that it reads,
and not those of the other.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from rag_jax.corpus import read_passages
from rag_jax.data.questions import Question, read_questions
from rag_jax.errors import InputError
from rag_jax.experiments import charts, options, other_world
from rag_jax.experiments.plan import Plan
from rag_jax.experiments.report import Report, Table
from rag_jax.experiments.runs import Run, rag_run, train
from rag_jax.experiments.scores import COLUMNS, exact_matches, summarise
from rag_jax.experiments.setup import Setup, prepare, read_answered
from rag_jax.index.store import Store
from rag_jax.pipeline.assembly import open_components, read_corpus
from rag_jax.pipeline.assembly import prepare as prepare_components
from rag_jax.training.run import tell_encoded

WORLDS = ("A", "B")
# 82 world leaders of 2016 (A) and of 2018 (B)
PAPER = {("A", "A"): 0.70, ("A", "B"): 0.04, ("B", "A"): 0.12, ("B", "B"): 0.68}
MATCHED, MISMATCHED = 0.60, 0.15  # what the swap must reach at least, and at most
FOLDER = "other"


def plan(given: options.HotSwap) -> Plan:
    """The plan of the swap. Raises `InputError` without a second version of the world."""
    setup, other = prepare(given), (given.other_passages, given.other_questions)
    check(setup, *other)
    return Plan(runs(setup), setup.write_data, partial(measure, setup, *other))


def check(setup: Setup, other_passages: Path | None, other_questions: Path | None) -> None:
    """Raise `InputError` where there is no second version of the world, or one that asks for nothing else."""
    if setup.is_cities:
        if other_passages or other_questions:
            raise InputError("the cities bring their second version; leave --other-passages and --other-questions out")
        return
    if other_passages is None or other_questions is None:
        raise InputError("name the second version of the world: --other-passages FILE and --other-questions FILE")
    if setup.config.retriever.train_passages:
        problem = "trains the passage tower, and each run would need an index of its own of the second version"
        raise InputError(f"retriever.train_passages: {problem}; swap indexes of a passage tower that is not trained")
    for _ in read_passages(other_passages, setup.config.data.passage_words):
        pass  # what cannot be read is refused before the training
    pairs(setup, other_questions)


def pairs(setup: Setup, other_questions: Path) -> list[tuple[Question, Question]]:
    """The questions that the two versions answer differently. Raises `InputError` where there are none."""
    found = other_world.with_other_answers(setup.questions(), read_answered(other_questions))
    if not found:
        what = "no question of data.evaluation has another answer there"
        raise InputError(f"{other_questions}: {what}; give the same questions with the answers of the second version")
    return found


def runs(setup: Setup) -> list[Run]:
    """The trained RAG-Token models."""
    return [rag_run(setup, "token", seed) for seed in range(setup.seeds)]


def measure(setup: Setup, other_passages: Path | None, other_questions: Path | None) -> Report:
    """Ask for the facts of both versions with both indexes."""
    if other_passages is None or other_questions is None:
        folder = setup.workdir / "data" / FOLDER
        questions = read_questions(setup.workdir / "data" / other_world.QUESTIONS)
        setup.write_own(f"data/{FOLDER}", other_world.FILES, partial(other_world.write, questions=questions))
        other_passages, other_questions = folder / other_world.PASSAGES, folder / other_world.QUESTIONS
    asked = dict(zip(WORLDS, map(list, zip(*pairs(setup, other_questions), strict=True)), strict=True))
    scores: dict[tuple[str, str], list[np.ndarray]] = {}
    for run in runs(setup):
        rag = train(run)
        models = dict(zip(WORLDS, (rag, rag.with_index(_other_index(setup, run, other_passages))), strict=True))
        for index, model in models.items():
            for world, questions in asked.items():
                scores.setdefault((index, world), []).append(exact_matches(model, questions, setup.answers))
    summaries = {key: summarise(np.stack(each)) for key, each in scores.items()}
    groups = {f"index {i}": {f"answers of {w}": summaries[i, w] for w in WORLDS} for i in WORLDS}
    title = "Index hot-swapping: one model, two versions of the world"
    return Report(
        title=title,
        table=Table(
            ("index", "answers of", *COLUMNS, "paper"), [(*key, *each, PAPER[key]) for key, each in summaries.items()]
        ),
        paper="of the leaders of 2016, 70 % are right with the index of 2016 and 12 % with that of 2018; of those of "
        "2018, 68 % with the index of 2018 and 4 % with that of 2016.",
        found=verdict({key: each.mean for key, each in summaries.items()}),
        draw=partial(charts.bars, title=title, groups=groups, ylabel="exact match"),
        runs=runs(setup),
        questions=len(asked["A"]),
        seeds=setup.seeds,
        notes=(f"Of {len(setup.questions()):,} questions, those whose answers differ between the versions count.",),
    )


def verdict(means: Mapping[tuple[str, str], float]) -> str:
    """Whether the model answers from the index that it has."""
    matched, mismatched = [means["A", "A"], means["B", "B"]], [means["A", "B"], means["B", "A"]]
    is_swapped = min(matched) >= MATCHED and max(mismatched) <= MISMATCHED
    said = f"{_listed(matched)} with the matching index, {_listed(mismatched)} with the other."
    needs = f"matching at least {MATCHED:.2f}, mismatched at most {MISMATCHED:.2f}"
    return f"{said} {'Reproduced' if is_swapped else 'Not reproduced at this scale'}: {needs}."


def _listed(values: Sequence[float]) -> str:
    return " and ".join(f"{value:.3f}" for value in values)


def _other_index(setup: Setup, run: Run, passages: Path) -> Store:
    """The index of the second version, built on first use and shared by the runs."""
    data = dataclasses.replace(run.config.data, passages=passages, index=setup.workdir / f"index-{FOLDER}")
    config = dataclasses.replace(run.config, data=data)
    corpus = read_corpus(config)
    try:
        components = prepare_components(config, run.workdir, corpus)
    except InputError as error:  # an index of other passages: its remedy would be an option that is not there
        raise InputError(f"{str(error).rpartition(';')[0]}; choose another --workdir") from None
    return open_components(components, run.workdir, tell_encoded).store
