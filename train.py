"""Train a RAG: python train.py configs/NAME.py [--dotted.overrides VALUE] --workdir DIR

The workdir is left with `config.json`, `metrics.jsonl`, `timings.jsonl`, `checkpoints/` and `results.json`. Running the
same command again goes on from the newest checkpoint, as if the run had never stopped.

    --dry-run                                     what the run would take: shapes, memory, sharding, one compiled step
    --coordinator HOST:PORT --processes N --process I     one of several processes; --coordinator auto on a cluster
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

from rich.console import Console

from rag_jax import training
from rag_jax.data.batches import Examples
from rag_jax.data.questions import Question, fingerprint, read_questions
from rag_jax.errors import InputError, reported
from rag_jax.evaluation import evaluate
from rag_jax.rag import RAG, restore_params
from rag_jax.run import config as configs
from rag_jax.run import devices, dryrun, speed, vocabularies
from rag_jax.run.assembly import assemble, opened, prepare, read_corpus, required
from rag_jax.run.checkpoints import Checkpoints, saved_place
from rag_jax.run.checks import check
from rag_jax.run.collapse import Watchdog
from rag_jax.run.config import Config
from rag_jax.run.course import begin, kept, not_finite, rate
from rag_jax.run.examples import tokenize_pairs
from rag_jax.run.feed import Given, feed
from rag_jax.run.files import write_whole
from rag_jax.run.gold import check_gold
from rag_jax.run.journal import Journal, Silent, seconds_trained
from rag_jax.run.made_of import MadeOf, check_same, index, made_of, read
from rag_jax.run.parts import Parts
from rag_jax.run.recipes import learning_rates
from rag_jax.run.stopping import Stopping
from rag_jax.run.window import Window
from rag_jax.run.workdir import CONFIG, locked
from rag_jax.run.writers import TensorBoard, Wandb, Writer
from rag_jax.types import RagParams

console = Console(stderr=False)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--coordinator")
    parser.add_argument("--processes", type=int)
    parser.add_argument("--process", type=int)
    known, overrides = parser.parse_known_args(arguments)
    config = configs.override(configs.read(known.config), overrides)
    if not known.coordinator and (known.processes, known.process) != (None, None):
        raise InputError("--processes and --process need --coordinator; give HOST:PORT of the first, or auto")
    if known.coordinator:
        devices.join(None if known.coordinator == "auto" else known.coordinator, known.processes, known.process)
    if known.dry_run:
        console.print(dryrun.report(config, known.workdir))
        return
    _, results = run(config, known.workdir)
    if devices.is_first():
        console.print_json(data=results)
        console.print(f'Next: rag-jax answer "YOUR QUESTION" --workdir {known.workdir}', soft_wrap=True)


def run(config: Config, workdir: Path) -> tuple[RAG, dict]:
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
        vocabularies.keep(parts, workdir)
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


def train(
    parts: Parts,
    first: RagParams,
    examples: Examples,
    workdir: Path,
    depends: MadeOf,
    judged: Sequence[Question] = (),
) -> RAG:
    """The loop: one compiled step from state to state, retrieval included; checkpoints say what it `depends` on."""
    config, checkpoints = parts.config, Checkpoints(workdir)
    state, place = begin(parts, first, checkpoints)
    step = devices.compiled_first(devices.jitted(partial(training.train_step, parts.recipe), parts.mesh, state))
    done, rates = int(state.step), learning_rates(config)
    window, watchdog, clock = Window(place["window"]), Watchdog(place["watchdog"]), speed.Clock(speed.searching(parts))
    batches = feed(parts, examples, place["input"], lambda: state.params, clock)

    with Stopping() as stopping, open_journal(config, workdir, done) as journal:
        for number in range(done + 1, config.steps + 1):
            last = number == config.steps
            with clock("input"):
                given, drawn = next(batches)
            with clock("step"):
                state, metrics = step(state, *given)
                window.add(number, drawn, metrics)
            clock.saw(config.batch_size)
            if number % config.log_every == 0 or last:
                with clock("step"):
                    values = window.close()
                values["learning_rate"] = rate(rates, number, values)
                journal.log(number, values, clock.close(*work(parts, given, values["input_tokens"])))
                warned = watchdog.judge(values)
                if warned:
                    journal.warn(warned)
            if window.last and window.last.skipped_in_a_row >= config.max_bad_steps:
                checkpoints.close()
                raise not_finite(examples, window.last, workdir)
            if config.eval_every and number % config.eval_every == 0:
                with clock("evaluation"):
                    journal.evaluated(number, measured(RAG(parts, state.params), judged))
            stop = stopping.after(number)
            due = number % config.save_every == 0 and not window.skips()  # lest bad steps push good ones out
            if due or last or stop:
                with clock("save"):
                    checkpoints.save(state, kept(depends, drawn, window, watchdog))
            if stop and not last:
                checkpoints.close()
                raise stopping.stopped(number, workdir)
    checkpoints.close()
    return RAG(parts, state.params)


def open_journal(config: Config, workdir: Path, first_step: int) -> Journal | Silent:
    """Where the run is told, by the first process."""
    if not devices.is_first():
        return Silent()
    watchers: list[Writer] = []
    if config.watch.tensorboard:
        watchers.append(TensorBoard(workdir, first_step))
    if config.watch.wandb:
        watchers.append(Wandb(workdir, config.watch.wandb, dataclasses.asdict(config)))
    return Journal(workdir, first_step, config.steps, console, watchers)


def work(parts: Parts, given: Given, read: float) -> tuple[float, float]:
    """The tokens that the generator reads and is taught for one question, and its model FLOPs.

    `read` is the mean length of an input; questions and targets count with the padding of this batch.
    """
    c, question, target = parts.config, given.batch.question.ids.shape[1], given.batch.targets.shape[1]
    trains = c.retriever.mode == "trained" and not c.data.is_closed_book
    sizes = parts.towers.config, parts.reader.config
    flops = speed.flops(*sizes, 1, parts.num_docs, (question, read, target), trains)
    return parts.num_docs * (read + target), flops


def measured(rag: RAG, questions: Sequence[Question]) -> dict[str, float]:
    """The scores of an evaluation: exact match and F1, and the retriever's recall."""
    _, scores = evaluate.answering(rag, questions, rag.parts.config.eval_batch)
    return scores if rag.parts.config.data.is_closed_book else scores | evaluate.recall(rag, questions)


def measure(rag: RAG, questions: list[Question]) -> dict:
    """The final evaluation, beside everything that a score depends on."""
    config, parts = rag.parts.config, rag.parts
    scores = measured(rag, questions)
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


if __name__ == "__main__":
    with reported():
        main(sys.argv[1:])
