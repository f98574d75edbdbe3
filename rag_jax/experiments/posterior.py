"""Which passage each token of an answer came from: `p(z | x, y_t, y_<t)` (Lewis et al. 2020, figure 2)."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float

from rag_jax.core.likelihood import rag_sequence
from rag_jax.core.variants import VARIANTS, Model
from rag_jax.data.questions import Question
from rag_jax.errors import InputError
from rag_jax.evaluation import figures
from rag_jax.experiments import options
from rag_jax.experiments.plan import Plan
from rag_jax.experiments.report import Report, Table
from rag_jax.experiments.runs import Run, rag_run, train
from rag_jax.experiments.setup import prepare
from rag_jax.rag import RAG, Answer

NUM_DOCS = 5  # if none is given
MOVED = 0.1  # total variation by which a posterior moves noticeably


def plan(given: options.Posterior) -> Plan:
    """The plan of the answer. Raises `InputError` without a question, and for a model without a posterior."""
    question = check_question(given.question)
    if given.model_workdir is not None:
        if given.config != options.CITIES or given.reader is not None:
            raise InputError("--model-workdir names a trained run; leave --config and --reader out")
        rag = model_in(given.model_workdir)
        _check_num_docs(given.num_docs, len(rag.components.store))
        rag.check([Question("question", question, ())], num_docs=given.num_docs)
        return Plan([], lambda: None, partial(measure, lambda: rag, question, given.num_docs, []))
    setup = prepare(given)
    _check_num_docs(given.num_docs, setup.count_passages())
    if setup.config.generator.passages_per_prompt > 1:
        raise InputError(f"{given.config}: reads passages together, and has no posterior; set passages_per_prompt to 1")
    run = rag_run(setup, "token", 0)
    return Plan([run], setup.write_data, partial(measure, partial(train, run), question, given.num_docs, [run]))


def check_question(question: str | None) -> str:
    """The question. Raises `InputError` without one."""
    if question is None or not question.strip():
        raise InputError('ask a question: --question "What is the population of Lyon?"')
    return question


def model_in(workdir: Path) -> RAG:
    """The model in a workdir. Raises `InputError` for one whose answers have no posterior."""
    rag = RAG.from_workdir(workdir)
    if rag.components.store.is_closed_book or not rag.components.layout.has_posterior:
        raise InputError(f"{workdir}: its answers have no posterior; name a run of RAG-Token or RAG-Sequence")
    return rag


def measure(load: Callable[[], RAG], question: str, num_docs: int | None, trained: Sequence[Run]) -> Report:
    """Answer the question, and report the posterior of each token."""
    rag = load()
    answer = rag.answer([question], num_docs=num_docs or min(NUM_DOCS, len(rag.components.store)))[0]
    posteriors = answer.token_posteriors
    if posteriors is None or not answer.passages:
        raise InputError(f"{question!r}: the answer has no posterior over passages; ask another question")
    rows = [
        (number, passage.id, passage.title, float(np.exp(passage.log_prior)), *posterior)
        for number, (passage, posterior) in enumerate(zip(answer.passages, posteriors.tolist(), strict=True), start=1)
    ]
    return Report(
        title=f"Posterior of each token: {question}",
        table=Table(("rank", "passage", "title", "prior", *map(figures.visible, answer.tokens)), rows),
        paper="RAG-Token takes tokens of one answer from different passages, and its posterior flattens once the "
        "first token of a name is generated, which the generator completes by itself.",
        found=verdict(rag.components.config.model, answer, posteriors),
        draw=partial(figures.token_posteriors, question, answer),
        runs=trained,
        questions=1,
        seeds=1,
        data=Table(("token", "text", "rank", "passage", "title", "prior", "posterior"), _long(answer, posteriors)),
        notes=(f"Answer: {answer.text} (log p(y|x) = {answer.log_prob:.3f})",),
    )


def verdict(model: Model, answer: Answer, posteriors: Float[np.ndarray, "K T"]) -> str:
    """How far the posterior moves between tokens, and which passages lead."""
    best = dict.fromkeys(posteriors.argmax(axis=0).tolist())
    leaders = ", ".join(answer.passages[row].title or f"passage {row + 1}" for row in best)
    moves = float(np.max(0.5 * np.abs(np.diff(posteriors, axis=1)).sum(axis=0), initial=0.0))
    said = f"The tokens of {answer.text!r} come mostly from: {leaders}. "
    said += f"The posterior moves by up to {moves:.3f} (total variation) from one token to the next."
    if VARIANTS[model].likelihood is rag_sequence:
        return f"{said} RAG-Sequence has one posterior for all tokens by definition."
    judged = "Reproduced" if moves > MOVED else "Not reproduced for this question"
    return f"{said} {judged}: a posterior that differs between tokens (by more than {MOVED})."


def _check_num_docs(num_docs: int | None, size: int) -> None:
    if num_docs is not None and not 1 <= num_docs <= size:
        raise InputError(f"--num-docs is {num_docs}, the index has {size:,} passages; give 1 to {size}")


def _long(answer: Answer, posteriors: Float[np.ndarray, "K T"]) -> list[tuple]:
    """A row for each token and passage."""
    table = posteriors.tolist()
    return [
        (t, token, rank, passage.id, passage.title, float(np.exp(passage.log_prior)), table[rank - 1][t - 1])
        for t, token in enumerate(answer.tokens, start=1)
        for rank, passage in enumerate(answer.passages, start=1)
    ]
