"""A training run: check the config, start or resume, train, evaluate."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import jax
import numpy as np

from rag_jax.config.config import Config
from rag_jax.config.files import AnyConfig, load_config, save_config
from rag_jax.data import strict_json
from rag_jax.data.files import write_atomically
from rag_jax.data.questions import Question, check_targets, fingerprint, read_questions
from rag_jax.errors import InputError, warn
from rag_jax.evaluation import evaluate
from rag_jax.parallel import devices
from rag_jax.pipeline import finetuning, refreshing, workdir_tokenizers
from rag_jax.pipeline.assembly import assemble, open_components, prepare, read_corpus, required_path
from rag_jax.pipeline.checkpoints import finished_params, is_finished, saved_host_state
from rag_jax.pipeline.gold_passages import check_gold
from rag_jax.rag import RAG
from rag_jax.terminal import Terminal
from rag_jax.training import refreshed_index
from rag_jax.training.checks import check
from rag_jax.training.examples import tokenize_pairs
from rag_jax.training.loop import train
from rag_jax.training.metric_logger import seconds_trained
from rag_jax.training.provenance import (
    PASSAGES,
    VECTORS,
    check_same,
    evaluation_dependencies,
    index_dependencies,
    may_have_begun_from,
    run_dependencies,
)
from rag_jax.training.start import start_params
from rag_jax.training.workdir import CONFIG, locked
from rag_jax.types import Params

console = Terminal()


def train_and_evaluate(config: Config, workdir: Path) -> tuple[RAG, dict]:
    """Train, evaluate and write results.json. Returns the model and the results."""
    questions = read_judged(config)
    with alone(config, workdir):
        rag = fit_alone(config, workdir)
        results = measure(rag, questions, as_begun(config, workdir, rag))
        if devices.is_first():
            results |= {"train_seconds": seconds_trained(workdir)}
            write_atomically(workdir / evaluate.RESULTS, strict_json.dumps(results, indent=2) + "\n")
    return rag, results


def fit(config: Config, workdir: Path) -> RAG:
    """Train, or resume from the newest checkpoint. Invalid input is reported before anything is written.

    A finished run needs neither its training questions nor its passages.
    """
    with alone(config, workdir):
        return fit_alone(config, workdir)


def untrained(config: Config, workdir: Path) -> RAG:
    """The model that a run starts from, zero-shot where its networks are pretrained; builds the run's index.

    Raises `InputError` as `fit` does.
    """
    with alone(config, workdir):
        devices.enable_compilation_cache(config)
        components = open_components(prepare(config, workdir, read_corpus(config)), workdir, tell_encoded)
        start, initial = start_params(components, begun=False), components.initial_params
        if start is not None and not _are_equal(start.passage_tower, initial.passage_tower):
            problem = (
                f"start_from: the passage tower of {config.start_from} is trained, and the index here is not its own"
            )
            raise InputError(f"{problem}; load that workdir instead")
        return RAG(components, start or initial)


def alone(config: Config, workdir: Path) -> AbstractContextManager[None]:
    """Lock the workdir, in the first of several processes. Raises `InputError` for the workdir of another config."""
    check(config, workdir)
    return locked(workdir) if devices.is_first() else nullcontext()


def fit_alone(config: Config, workdir: Path) -> RAG:
    """`fit`, in a workdir that this process has locked."""
    changed = check(config, workdir)  # again: another run may have held the lock until now
    judged = questions_to_judge(config)
    devices.enable_compilation_cache(config)
    rag = finished(config, workdir)
    if rag is not None:
        check_gold(rag.components.store, judged, "evaluation questions")
        rag.check(judged)
        record_config(config, workdir, changed)
        return rag
    path = required_path(config.data.train, "data.train")
    questions = read_questions(path)
    check_targets(questions, path)
    prepared, host_state = prepare(config, workdir, read_corpus(config)), saved_host_state(workdir)
    examples = tokenize_pairs(prepared, questions, console)
    check_gold(prepared.store, judged, "evaluation questions")
    if config.retriever.train_passages:
        refreshing.check_towers(prepared.bi_encoder)
    RAG(prepared, prepared.initial_params).check(judged)
    start = start_params(prepared, begun=host_state is not None)
    depends = check_same(host_state, run_dependencies(prepared, questions, start), config, workdir)
    components = open_components(prepared, workdir, tell_encoded)
    if components.store is not prepared.store:
        depends = check_same(host_state, depends | index_dependencies(components), config, workdir)
    for line in components.truncated if devices.is_first() else ():
        console.print(line, soft_wrap=True)
    record_config(config, workdir, changed)  # first: it shows that the other files are of this run
    if devices.is_first():
        workdir_tokenizers.save(components, workdir)
    trained = train(components, start or components.initial_params, examples, workdir, depends, judged)
    return (finished(config, workdir) or trained) if config.retriever.train_passages else trained


def questions_to_judge(config: Config) -> list[Question]:
    """The evaluation questions, if any. Raises `InputError` if the closed-book baseline was scored on others."""
    if config.data.evaluation is None and not (config.eval_every or config.closed_book):
        return []
    questions = read_judged(config)
    if config.closed_book:
        evaluate.closed_book_score(config.closed_book, questions)
    return questions


def read_judged(config: Config) -> list[Question]:
    """The evaluation questions. Raises `InputError` for answers that exact match cannot score."""
    path = required_path(config.data.evaluation, "data.evaluation")
    questions = read_questions(path)
    for question in questions:
        if question.regex or not question.answers:
            problem = "has regular expressions as answers" if question.regex else "has no answers"
            raise InputError(f'{path}: question "{question.id}" {problem}; score these by rag-jax evaluate')
    return questions


def finished(config: Config, workdir: Path) -> RAG | None:
    """The model of a finished run; None if steps remain."""
    if not is_finished(workdir, config.steps):
        return None
    if config.retriever.train_passages and not refreshed_index.write(config, workdir, tell_encoded):
        return None
    components = assemble(config, workdir)
    like = finetuning.with_adapters(config, components.initial_params)
    params = finished_params(workdir, config.steps, like)
    now = evaluation_dependencies(components)
    if config.retriever.train_passages:  # the index that the run has written
        now = {name: each for name, each in now.items() if name not in (PASSAGES, VECTORS)}
    check_same(saved_host_state(workdir), now, config, workdir)
    return None if params is None else RAG(components, finetuning.merged(config, params))


def check_begun(config: Config, workdir: Path) -> None:
    """Reject a run that was trained on other questions, or began from other parameters, than the config names now.

    `fit` does not compare these once a run is finished. The workdir that it started from may be gone.
    """
    host_state = saved_host_state(workdir)
    if host_state is None:
        return
    check_same(host_state, {}, config, workdir)
    if not is_finished(workdir, config.steps):
        return  # `fit` compares the rest
    questions = read_questions(required_path(config.data.train, "data.train"))
    components = prepare(config, workdir, [])
    is_same_path = load_config(workdir / CONFIG).start_from == config.start_from
    start = start_params(components, begun=is_same_path)
    check_same(host_state, run_dependencies(components, questions, start), config, workdir)


def as_begun(config: Config, workdir: Path, rag: RAG) -> RAG | None:
    """The model before training: with the index of its towers as they were, where both are trained.

    None, with a warning, where the run of `start_from` is no longer there as it was, or the index is not by its tower;
    of a closed book without one.
    """
    components = rag.components
    if config.data.is_closed_book:
        return None
    if config.retriever.train_passages:
        components = open_components(prepare(config, workdir, []), workdir)
    initial = components.initial_params
    if config.start_from is None:
        return RAG(components, initial)
    try:
        start = start_params(components, begun=True)
    except InputError:
        start = None
    if start is None or not may_have_begun_from(saved_host_state(workdir), start):
        warn(f"{config.start_from}: not as it was when this run began; results lack the recall before training")
        return None
    if not _are_equal(start.passage_tower, initial.passage_tower):
        warn(f"{config.start_from}: its passage tower is trained; results lack the recall before training")
        return None
    return RAG(components, start)


def _are_equal(one: Params | None, other: Params | None) -> bool:
    """Whether two networks have the same parameters."""
    return one is other or bool(jax.tree.all(jax.tree.map(np.array_equal, one, other)))


def measure(rag: RAG, questions: list[Question], begun: RAG | None) -> dict:
    """The scores of the final evaluation and its settings. `begun` is the model before training; None: not known."""
    config, components = rag.components.config, rag.components
    scores = evaluate.scores(rag, questions)
    results = scores | {
        "questions": len(questions),
        "questions_cut": rag.check(questions),
        "evaluated_on": fingerprint(questions),
        "steps": config.steps,
        "model": config.model,
        "decoder": config.decoding.changed_options() or "greedy",
        "num_docs": components.num_docs,
        "index": evaluate.CLOSED_BOOK if config.data.is_closed_book else config.retriever.engine,
        "passages": len(components.store),
    }
    if not config.data.is_closed_book:
        before = {} if begun is None else evaluate.recall(begun, questions)
        results |= {f"{name}_before": value for name, value in before.items()}
        bm25 = evaluate.bm25_recall(components.store, questions)
        results |= {f"{name}_bm25": value for name, value in bm25.items()}
    if config.closed_book:
        results["closed_book_exact_match"] = evaluate.closed_book_score(config.closed_book, questions)
    return results


def record_config(config: AnyConfig, workdir: Path, changed: Sequence[str]) -> None:
    """Print what changed in the config since the run started, and save the config; the first process does."""
    if devices.is_first():
        if config.optimizer.warmup >= config.steps:
            problem = f"optimizer.warmup is {config.optimizer.warmup}, steps {config.steps}"
            warn(f"{problem}: the learning rate ends before its peak; lower optimizer.warmup")
        for line in changed:
            console.print(line, soft_wrap=True, highlight=False, markup=False)
        save_config(config, workdir / CONFIG)


def tell_encoded(done: int, of: int) -> None:
    """Print the progress of building the index."""
    console.print(f"encoding passages {done}/{of}", end="\r" if console.is_terminal and done < of else "\n")
