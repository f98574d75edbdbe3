"""How varied generated texts are: distinct trigrams over all trigrams (Lewis et al. 2020, table 5).

The task must have texts of several words. For the cities it is to describe them; another config brings its own.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise

import numpy as np

from rag_jax.core.variants import VARIANTS, Method, Model
from rag_jax.data.questions import Question
from rag_jax.errors import InputError
from rag_jax.evaluation.baselines import without_passages
from rag_jax.evaluation.metrics.generated_text import distinct_ngrams
from rag_jax.experiments import charts, descriptions, options
from rag_jax.experiments.plan import Plan
from rag_jax.experiments.report import Report, Table
from rag_jax.experiments.runs import MODELS, Run, closed_book_run, rag_run, train
from rag_jax.experiments.scores import Summary
from rag_jax.experiments.setup import Setup, prepare
from rag_jax.rag import RAG

N, BEAMS = 3, 4
FAST: Method = "fast"  # as the paper decodes RAG-Sequence here
FIRST = next(iter(MODELS))  # the model that is asked without its passages, where no closed book is trained
GOLD, CLOSED_BOOK = "gold", "closed book"
ORDER = (GOLD, MODELS["sequence"], MODELS["token"], CLOSED_BOOK)  # the paper's, most varied first
PAPER = {GOLD: (0.896, 0.900), CLOSED_BOOK: (0.707, 0.324), "RAG-Token": (0.778, 0.468), "RAG-Sequence": (0.835, 0.538)}


def plan(given: options.Diversity) -> Plan:
    """The plan of the comparison. Raises `InputError` for a task whose answers have no trigrams."""
    setup = prepare(given)
    check(setup)
    return Plan(runs(setup), partial(write_data, setup), partial(measure, setup))


def task(setup: Setup) -> Setup:
    """The setup of the task: descriptions for the cities, for another config its own questions."""
    return descriptions.describing(setup) if setup.is_cities else setup


def write_data(setup: Setup) -> None:
    """Write the cities and their descriptions, unless they are there."""
    setup.write_data()
    if setup.is_cities:
        data = setup.workdir / "data"
        setup.write_own("data/descriptions", descriptions.FILES, partial(descriptions.write, data))


def check(setup: Setup) -> None:
    """Raise `InputError` for a task whose answers have no trigrams."""
    if setup.is_cities:
        return
    words = [len(question.answers[0].split()) for question in setup.questions()]
    if sum(words) <= N * len(words):
        path, mean = setup.config.data.evaluation, sum(words) / len(words)
        raise InputError(f"{path}: answers of {mean:.1f} words on average; give a task with texts of more than {N}")


def runs(setup: Setup) -> list[Run]:
    """The trainings, on the task of the setup."""
    of_task = task(setup)
    found = [rag_run(of_task, model, seed) for seed in range(setup.seeds) for model in MODELS]
    if of_task.closed_book is not None:
        found += [closed_book_run(of_task, seed) for seed in range(setup.seeds)]
    return found


def measure(setup: Setup) -> Report:
    """Generate a text for each question with every model, with a beam of 4."""
    of_task = task(setup)
    questions = of_task.questions()
    gold = [question.answers[0] for question in questions]
    texts: dict[str, list[list[str]]] = {GOLD: [gold], CLOSED_BOOK: []}
    for seed in range(setup.seeds):
        for model, label in MODELS.items():
            rag = train(rag_run(of_task, model, seed))
            texts.setdefault(label, []).append(_generate(rag, model, questions))
            if of_task.closed_book is None and model == FIRST:
                texts[CLOSED_BOOK].append(_generate(without_passages(rag), model, questions))
        if of_task.closed_book is not None:
            rag = train(closed_book_run(of_task, seed))
            texts[CLOSED_BOOK].append(_generate(rag, rag.components.config.model, questions))
    return _report(setup, texts, len(questions))


def verdict(ratios: Mapping[str, float]) -> str:
    """Whether the order is the paper's."""
    said = ", ".join(f"{name} {ratios[name]:.3f}" for name in ORDER)
    ordered = all(ratios[a] > ratios[b] for a, b in pairwise(ORDER))
    order = " > ".join(ORDER)
    return f"{said}. {'Reproduced' if ordered else 'Not reproduced at this scale'}: {order}."


def _report(setup: Setup, texts: dict[str, list[list[str]]], questions: int) -> Report:
    ratios = {name: [distinct_ngrams(each, N) for each in texts[name]] for name in ORDER}
    summaries = {name: _summary(each) for name, each in ratios.items()}
    words = {name: float(np.mean([len(text.split()) for each in texts[name] for text in each])) for name in ORDER}
    rows = [(name, *summaries[name][:3], words[name], *PAPER[name]) for name in ORDER]
    title = "Distinct trigrams of generated texts"
    columns = ("text", "distinct trigrams", "lowest seed", "highest seed", "words per text")
    draw = partial(
        charts.bars, title=title, groups={name: {name: summaries[name]} for name in ORDER}, ylabel="distinct / all"
    )
    notes = [f"Beam search with {BEAMS} beams. Intervals in the figure are the range over seeds."]
    if task(setup).closed_book is None:
        notes.append("Closed book is the trained RAG-Token asked without its passages.")
    return Report(
        title=title,
        table=Table((*columns, "paper (MS MARCO)", "paper (Jeopardy)"), rows),
        paper="generated texts are less varied than gold ones; RAG-Sequence is more varied than RAG-Token, and both "
        "more than a generator without passages.",
        found=verdict({name: summary.mean for name, summary in summaries.items()}),
        draw=draw,
        runs=runs(setup),
        questions=questions,
        seeds=setup.seeds,
        notes=tuple(notes),
    )


def _summary(ratios: Sequence[float]) -> Summary:
    """The ratio's mean and range over the runs. A bootstrap would repeat texts, and with them their trigrams."""
    lowest, highest = min(ratios), max(ratios)
    return Summary(float(np.mean(ratios)), lowest, highest, lowest, highest)


def _generate(rag: RAG, model: Model, questions: Sequence[Question]) -> list[str]:
    options = {"method": FAST} if FAST in VARIANTS[model].decoders else {}
    batch = max(1, rag.components.config.eval_batch // BEAMS)
    asked = [question.question for question in questions]
    answers = rag.answer(asked, num_beams=BEAMS, batch_size=batch, **options)  # type: ignore[call-overload]
    return [answer.text for answer in answers]
