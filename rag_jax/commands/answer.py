"""`rag-jax answer`: answers of a trained model to questions, with the passages that it read."""

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import tyro
from rich.console import Console
from rich.table import Table

from rag_jax.commands.model import open_model, own_decoding
from rag_jax.commands.resumable import write_rows
from rag_jax.config.command_line import parse
from rag_jax.config.generation import BY_LOG_PROB, GenerationConfig
from rag_jax.data import outputs
from rag_jax.data.questions import Question, read_question_texts
from rag_jax.errors import InputError
from rag_jax.evaluation import figures
from rag_jax.pipeline import digests
from rag_jax.rag import RAG, Answer
from rag_jax.terminal import Terminal, styled


@dataclass(frozen=True)
class AnswerCommand:
    """Answer questions with a trained model, and show the passages that it read."""

    questions: tyro.conf.Positional[tuple[str, ...]] = ()
    workdir: Path | None = None  # of a training run
    checkpoint: str | None = None  # or a RAG checkpoint: a folder, or a repository of the hub[@revision]
    index: Path | None = None  # a knowledge store, or an index in another layout; None: the workdir's own
    closed_book: bool = False  # answer without passages, for a checkpoint without an index
    long_questions: Literal["refuse", "cut"] | None = None  # policy for questions that are too long; None: the model's
    system_prompt: str | None = None  # a text, or guardrail, grounded, none; None: the model's own
    file: Path | None = None  # read the questions from a file: JSON lines {"id": …, "question": …}, SQuAD, KILT, …
    output: Path | None = None  # write the answers as JSON lines; rerun the same command to resume
    figure: Path | None = None  # draw the posterior over the passages for each token of one answer: a .png, .pdf, …
    num_docs: int | None = None  # K, the passages to read; None: as in training
    prefix: str = ""  # what every answer must begin with
    labels: tuple[str, ...] = ()  # choose the most likely of these instead of generating an answer
    attention: bool = False  # also compute each passage's share of the decoder's attention (model fid)
    seed: int = 0  # of samples
    batch_size: int = 64
    decoding: tyro.conf.OmitArgPrefixes[GenerationConfig] = field(default_factory=GenerationConfig)
    default_decoding: tyro.conf.Suppress[GenerationConfig] = field(default_factory=GenerationConfig)  # the model's own

    def run(self) -> None:
        """Answer, then print or write. Raises `InputError` for invalid questions and options."""
        if bool(self.questions) == bool(self.file):
            raise InputError("ask QUESTIONS or name a --file of them, one of the two")
        questions = (
            read_question_texts(self.file)
            if self.file
            else [(str(n), text) for n, text in enumerate(self.questions, 1)]
        )
        if self.output:
            outputs.check_path(self.output)
        if self.figure:
            if len(questions) != 1 or self.output:
                raise InputError("--figure draws the answer to one question; ask one, without --output")
            figures.check_path(self.figure)
        rag = open_model(
            self.workdir, self.checkpoint, self.index, self.closed_book, self.long_questions, self.system_prompt
        )
        if self.figure and rag.components.store.is_closed_book:
            raise InputError("--figure draws the posterior over the passages, and a closed book has none; leave it out")
        named = [Question(id, question, ()) for id, question in questions]
        rag.check(named, self.decoding, num_docs=self.num_docs, attention=self.attention)
        if self.output:
            self._write(self.output, rag, questions)
        else:
            self._print(rag, [question for _, question in questions])

    def _print(self, rag: RAG, questions: list[str]) -> None:
        """Print answers: those of a file as they are computed, others in the order of the questions."""
        answers, console = self._answers(rag, questions), Terminal()
        order = BY_LOG_PROB if self.labels else self.decoding.ranking(rag.components.config.model)
        for number, answer in answers if self.file else sorted(answers, key=lambda each: each[0]):
            show(console, questions[number], answer, order)
            if self.figure:
                figures.token_posterior(questions[number], answer, self.figure)
                console.print(f"{self.figure}: p(passage | question, token)", highlight=False, soft_wrap=True)

    def _write(self, output: Path, rag: RAG, asked: list[tuple[str, str]]) -> None:
        """Append answers to a file as they are computed; sort them into the order of the questions at the end."""
        ids, questions = [id for id, _ in asked], [question for _, question in asked]
        options = [asked, self.num_docs, self.prefix, self.labels, self.seed, self.attention, asdict(self.decoding)]
        fingerprint = digests.answers_digest(rag.components, rag.params, options)

        def rows(done: Collection[int]) -> Iterator[tuple[int, dict[str, Any]]]:
            for number, answer in self._answers(rag, questions, done):
                yield number, as_json(questions[number], answer)

        write_rows(output, fingerprint, ids, rows, doing="answering", of="questions", made="answers")

    def _answers(self, rag: RAG, questions: list[str], skip: Collection[int] = ()) -> Iterator[tuple[int, Answer]]:
        """(number, answer) of each question that is not in `skip`, a batch at a time."""
        if not self.labels:
            return rag.stream(
                questions,
                self.decoding,
                num_docs=self.num_docs,
                prefixes=self.prefix,
                seed=self.seed,
                batch_size=self.batch_size,
                attention=self.attention,
                skip=skip,
            )
        if self.decoding != self.default_decoding or self.prefix or self.attention:
            raise InputError("labels are scored as they are; leave out prefix, attention and generation options")
        return rag.stream_choices(questions, self.labels, num_docs=self.num_docs, batch_size=self.batch_size, skip=skip)


def answer(arguments: Sequence[str]) -> None:
    """`rag-jax answer`. Options that are not given default to the model's own config."""
    decoding = own_decoding(arguments)
    remedy = "rag-jax answer --help lists all options"
    default = AnswerCommand(decoding=decoding, default_decoding=decoding)
    parse(AnswerCommand, arguments, remedy=remedy, prog="rag-jax answer", default=default).run()


def as_json(question: str, answer: Answer) -> dict[str, Any]:
    """An answer as a line of an output file, except for its id."""
    return {"question": question, **_fields(answer), "alternatives": [*map(_fields, answer.alternatives)]}


def _fields(answer: Answer) -> dict[str, Any]:
    return {
        "answer": answer.text,
        "log_prob": answer.log_prob,
        "score": answer.score,
        "tokens": answer.tokens,
        "passages": [passage._asdict() for passage in answer.passages],
        "token_posteriors": None if answer.token_posteriors is None else answer.token_posteriors.tolist(),
    }


def show(console: Console, question: str, best: Answer, order: str = "") -> None:
    """Print one answered question; `order` says how alternative answers are ranked."""
    has_alternatives = bool(best.alternatives)
    console.print()
    console.print(styled(question, "bold").append(f"   {order}" if has_alternatives else "", "not bold"))
    for answer in (best, *best.alternatives):
        scores = f"log p(y|x) = {answer.log_prob:.4f}" + (f"   score = {answer.score:.4f}" if has_alternatives else "")
        console.print(styled(answer.text, "bold green").append(f"   {scores}", "not bold default"))
    table = Table(box=None, pad_edge=False)
    table.add_column("prior", justify="right")
    has_attention = any(passage.attention is not None for passage in best.passages)
    table.add_column("attention" if has_attention else "posterior", justify="right")
    table.add_column("passage", overflow="fold")
    for passage in best.passages:
        prior = f"{math.exp(passage.log_prior):.3f}"
        share = passage.attention if has_attention else passage.posterior
        table.add_row(prior, "" if share is None else f"{share:.3f}", f"{passage.title} / {passage.text}")
    console.print(table)
