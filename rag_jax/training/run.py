"""A training run from its config to its results: checked, begun or resumed, trained, and evaluated."""

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from rich.console import Console

from rag_jax.config import config as configs
from rag_jax.config.config import Config
from rag_jax.data.files import write_whole
from rag_jax.data.questions import Question, fingerprint, read_questions
from rag_jax.evaluation import evaluate
from rag_jax.parallel import devices
from rag_jax.pipeline import kept_tokenizers
from rag_jax.pipeline.assembly import assemble, opened, prepare, read_corpus, required
from rag_jax.pipeline.checkpoints import Checkpoints, saved_place
from rag_jax.pipeline.components import Parts
from rag_jax.pipeline.gold import check_gold
from rag_jax.pipeline.trained import restore_params
from rag_jax.rag import RAG
from rag_jax.training.checks import check
from rag_jax.training.examples import tokenize_pairs
from rag_jax.training.loop import train
from rag_jax.training.metric_logger import seconds_trained
from rag_jax.training.provenance import check_same, index, made_of, read
from rag_jax.training.workdir import CONFIG, locked
from rag_jax.types import RagParams

console = Console()


def train_and_evaluate(config: Config, workdir: Path) -> tuple[RAG, dict]:
    """Train as `config` says, evaluate, and write results.json: the model, and what that file holds."""
    questions = read_questions(required(config.data.evaluation, "data.evaluation"))
    with alone(config, workdir):
        rag = fit_alone(config, workdir)
        results = measure(rag, questions)
        if devices.is_first():
            results |= {"train_seconds": seconds_trained(workdir)}
            write_whole(workdir / evaluate.RESULTS, json.dumps(results, indent=2) + "\n")
    return rag, results


def fit(config: Config, workdir: Path) -> RAG:
    """Train, or go on from the newest checkpoint. Whatever cannot be used is found before anything is written.

    Nothing that it was trained on is needed, nor looked at, where the training has come to its end before.
    """
    with alone(config, workdir):
        return fit_alone(config, workdir)


def alone(config: Config, workdir: Path) -> AbstractContextManager[None]:
    """The workdir for this run alone, of several processes by the first. Refuses what is no workdir of this config."""
    check(config, workdir)
    return locked(workdir) if devices.is_first() else nullcontext()


def fit_alone(config: Config, workdir: Path) -> RAG:
    """`fit`, in a workdir where nobody else trains."""
    changed = check(config, workdir)  # again: another run may have been there until now
    judged = questions_to_judge(config)
    devices.keep_programs(config)
    rag = finished(config, workdir)
    if rag is not None:
        check_gold(rag.parts.store, judged, "evaluation questions")
        rag.check(judged)
        if devices.is_first():
            tell(changed)
            configs.write(config, workdir / CONFIG)
        return rag
    questions = read_questions(required(config.data.train, "data.train"))
    prepared, place = prepare(config, workdir, read_corpus(config)), saved_place(workdir)
    examples = tokenize_pairs(prepared, questions, console)
    check_gold(prepared.store, judged, "evaluation questions")
    RAG(prepared, prepared.first).check(judged)
    start = start_params(prepared, begun=place is not None)
    depends = check_same(place, made_of(prepared, questions, start), config, workdir)
    parts = opened(prepared, workdir, tell_encoded)
    if parts.store is not prepared.store:
        depends = check_same(place, depends | index(parts), config, workdir)
    for line in parts.truncated if devices.is_first() else ():
        console.print(line, soft_wrap=True)
    if devices.is_first():
        tell(changed)
        kept_tokenizers.keep(parts, workdir)
        configs.write(config, workdir / CONFIG)
    return train(parts, start or parts.first, examples, workdir, depends, judged)


def questions_to_judge(config: Config) -> list[Question]:
    """The questions of evaluations, if any; and whether the baseline that they are to be compared with is theirs."""
    if config.data.evaluation is None and not (config.eval_every or config.closed_book):
        return []
    questions = read_questions(required(config.data.evaluation, "data.evaluation"))
    if config.closed_book:
        evaluate.closed_book_score(config.closed_book, questions)
    return questions


def finished(config: Config, workdir: Path) -> RAG | None:
    """The model of a workdir whose training has come to its end; None where there are steps to be done."""
    if not (workdir / "checkpoints" / str(config.steps)).is_dir():
        return None
    parts, checkpoints = assemble(config, workdir), Checkpoints(workdir)
    params = checkpoints.params_at(config.steps, parts.first)
    checkpoints.close()
    check_same(saved_place(workdir), read(parts), config, workdir)
    return None if params is None else RAG(parts, params)


def measure(rag: RAG, questions: list[Question]) -> dict:
    """The final evaluation, beside everything that a score depends on."""
    config, parts = rag.parts.config, rag.parts
    scores = evaluate.scores(rag, questions)
    results = scores | {
        "questions": len(questions),
        "questions_cut": rag.check(questions),
        "evaluated_on": fingerprint(questions),
        "steps": config.steps,
        "model": config.model,
        "decoder": config.decoding.chosen() or "greedy",
        "num_docs": parts.num_docs,
        "index": evaluate.CLOSED_BOOK if config.data.is_closed_book else config.retriever.engine,
        "passages": len(parts.store),
    }
    if not config.data.is_closed_book:
        frozen = evaluate.recall(RAG(parts, parts.first), questions)
        results |= {f"{name}_frozen": value for name, value in frozen.items()}
        bm25 = evaluate.bm25_recall(parts.store, questions)
        results |= {f"{name}_bm25": value for name, value in bm25.items()}
    if config.closed_book:
        results["closed_book_exact_match"] = evaluate.closed_book_score(config.closed_book, questions)
    return results


def start_params(parts: Parts, begun: bool) -> RagParams | None:
    """What another run ended with, where this one starts from it; one that has begun does not need it any more."""
    source = parts.config.start_from
    if source is None or (begun and not (source / "checkpoints").is_dir()):
        return None
    return restore_params(source, parts)


def tell(lines: Sequence[str]) -> None:
    """What has changed since the run was begun."""
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def tell_encoded(done: int, of: int) -> None:
    """Progress while the knowledge store is built."""
    console.print(f"encoding passages {done}/{of}", end="\r" if console.is_terminal and done < of else "\n")
