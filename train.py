"""Train a RAG: python train.py configs/NAME.py [--dotted.overrides VALUE] --workdir DIR

The workdir is left with `config.json`, `metrics.jsonl`, `checkpoints/` and `results.json`. Running the same command
again continues from the newest checkpoint.
"""

import argparse
import json
import os
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from rag_jax import training
from rag_jax.data.batches import Examples, fitting, tokenize
from rag_jax.data.questions import Question, read_questions, training_pairs
from rag_jax.errors import InputError, reported
from rag_jax.evaluation import evaluate
from rag_jax.rag import RAG, restore_params
from rag_jax.run import config as configs
from rag_jax.run.assembly import assemble, read_corpus, required
from rag_jax.run.checkpoints import Checkpoints
from rag_jax.run.config import Config
from rag_jax.run.feed import feed
from rag_jax.run.journal import Journal, seconds_trained
from rag_jax.run.parts import Parts, learning_rates
from rag_jax.types import RagParams

console = Console(stderr=False)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--workdir", type=Path, required=True)
    known, overrides = parser.parse_known_args(arguments)
    _, results = run(configs.override(configs.read(known.config), overrides), known.workdir)
    console.print_json(data=results)
    console.print(f'Next: rag-jax answer "YOUR QUESTION" --workdir {known.workdir}', soft_wrap=True)


def run(config: Config, workdir: Path) -> tuple[RAG, dict]:
    """Train as `config` says, evaluate, and write results.json: the model, and what that file holds."""
    questions = read_questions(required(config.data.evaluation, "data.evaluation"))
    rag = fit(config, workdir)
    results = measure(rag, questions) | {"train_seconds": seconds_trained(workdir / "metrics.jsonl")}
    (workdir / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return rag, results


def fit(config: Config, workdir: Path) -> RAG:
    """Train, or go on from the newest checkpoint. Whatever cannot be used is found before anything is written."""
    check(config, workdir)
    questions = read_questions(required(config.data.train, "data.train"))
    parts = assemble(config, workdir, read_corpus(config), tell_encoded)
    examples = tokenize_pairs(parts, questions)
    first = first_params(parts)
    configs.write(config, workdir / "config.json")
    return train(parts, first, examples, workdir)


def check(config: Config, workdir: Path) -> None:
    """Refuse numbers that make no run, a workdir of another config, and one that cannot be written."""
    for name in ("steps", "batch_size", "log_every", "save_every"):
        if getattr(config, name) < 1:
            raise InputError(f"{name} is {getattr(config, name)}; give 1 or more")
    retriever = config.retriever
    if retriever.staleness < 0 or (retriever.staleness and retriever.engine == "device"):
        told = f"retriever.staleness is {retriever.staleness} with the engine {retriever.engine}"
        raise InputError(f"{told}; give 0, or more for a search on the host")
    for _, prompt in config.buckets:
        if prompt >= config.generator.max_input:
            raise InputError(f"buckets: {prompt} question tokens leave no room in generator.max_input; raise it")
    if config.closed_book:
        closed_book_score(config.closed_book)
    path = workdir / "config.json"
    if path.exists() and configs.load(path) != config:
        raise InputError(f"{path}: belongs to a run with another config; choose another --workdir")
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{workdir}: cannot be made ({error.strerror}); choose another --workdir") from None
    if not os.access(workdir, os.W_OK):
        raise InputError(f"{workdir}: cannot be written; choose another --workdir")


def train(parts: Parts, first: RagParams, examples: Examples, workdir: Path) -> RAG:
    """The loop: one compiled step from state to state, retrieval included."""
    config, recipe = parts.config, parts.recipe

    def begin() -> training.TrainState:
        # Copies: the step donates its state, and the first parameters are still the frozen retriever's.
        copies = parts.placement.everywhere(jax.tree.map(lambda leaf: jnp.array(leaf), first))
        return training.init(recipe, copies, jax.random.key(config.seed))

    checkpoints = Checkpoints(workdir)
    state = parts.placement.everywhere(checkpoints.restore(begin) or begin())
    step = jax.jit(partial(training.train_step, recipe), donate_argnums=0)
    done = int(state.step)
    given = feed(parts, examples, done, lambda: state.params)
    rates = learning_rates(config)

    with Journal(workdir / "metrics.jsonl", done, config.steps, console) as journal:
        waiting = []
        for number in range(done + 1, config.steps + 1):
            state, metrics = step(state, *next(given))
            waiting.append(metrics)
            if number % config.log_every == 0 or number == config.steps:
                values = summarise(waiting) | {"learning_rate": float(jnp.asarray(rates(number - 1)))}
                journal.log(number, values, examples=len(waiting) * config.batch_size)
                waiting = []
            if number % config.save_every == 0 or number == config.steps:
                checkpoints.save(state)
    checkpoints.close()
    return RAG(parts, state.params)


def measure(rag: RAG, questions: list[Question]) -> dict:
    """The final evaluation, beside everything that a score depends on."""
    config, parts = rag.parts.config, rag.parts
    _, scores = evaluate.answering(rag, questions, config.eval_batch)
    results = scores | {
        "questions": len(questions),
        "model": config.model,
        "decoder": config.decoding.chosen() or "greedy",
        "num_docs": parts.num_docs,
        "index": "none (closed book)" if config.data.is_closed_book else config.retriever.engine,
        "passages": len(parts.store),
    }
    if not config.data.is_closed_book:
        results |= evaluate.recall(rag, questions)
        frozen = evaluate.recall(RAG(parts, parts.first), questions)
        results |= {f"{name}_frozen": value for name, value in frozen.items()}
        bm25 = evaluate.bm25_recall(parts.store, questions)
        results |= {f"{name}_bm25": value for name, value in bm25.items()}
    if config.closed_book:
        results["closed_book_exact_match"] = closed_book_score(config.closed_book)
    return results


def closed_book_score(workdir: Path) -> float:
    """The exact match that a finished closed-book run reached."""
    path = workdir / "results.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))["exact_match"]
    except (OSError, ValueError, KeyError):
        raise InputError(f"{path}: no results there; finish that run first, or leave closed_book out") from None


def tokenize_pairs(parts: Parts, questions: list[Question]) -> Examples:
    """The training pairs as token ids; those with a long answer are left out, and counted aloud."""
    config, limit = parts.config, parts.config.generator.max_target
    pairs = training_pairs(questions, config.data.all_answers)
    kept = fitting(pairs, parts.vocabulary, limit)
    if len(kept) < len(pairs):
        left = f"{len(pairs) - len(kept)} of {len(pairs)} training pairs"
        console.print(f"left out {left}: answers of more than {limit} tokens (generator.max_target)", soft_wrap=True)
    gold = sorted({i for question, _ in kept for i in question.positive_ids})
    rows = {i: row for i, row in zip(gold, parts.store.find(gold).tolist(), strict=True) if row >= 0}
    if config.retriever.mode == "gold" and not config.data.is_closed_book:
        for question, _ in kept:
            if not any(i in rows for i in question.positive_ids):
                remedy = "retriever.mode gold needs one"
                raise InputError(f"question {question.id!r} names no gold passage of the index; {remedy}")
    return tokenize(
        kept,
        parts.towers.tokenizer,
        parts.vocabulary,
        rows,
        max_question=config.retriever.max_question,
        max_target=limit,
        ladder=config.buckets,
        from_tower=config.generator.question_from_tower,
    )


def first_params(parts: Parts) -> RagParams:
    """Where training starts: the towers and the generator as given, or what another run ended with."""
    start = parts.config.start_from
    return parts.first if start is None else restore_params(start, parts)


def summarise(metrics: list[training.Metrics]) -> dict[str, float]:
    """Means over the steps since the last line; NaN, where a batch names no gold passages, is left out."""
    fetched = jax.device_get(metrics)
    means = {name: np.mean([getattr(each, name) for each in fetched]) for name in training.Metrics._fields}
    return {name: float(value) for name, value in means.items() if not np.isnan(value)}


def tell_encoded(done: int, of: int) -> None:
    """Progress while the knowledge store is built."""
    console.print(f"encoding passages {done}/{of}", end="\r" if console.is_terminal and done < of else "\n")


if __name__ == "__main__":
    with reported():
        main(sys.argv[1:])
