"""`rag-jax answer`: questions to a trained model, its answers and the passages that they rest on."""

import argparse
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rag_jax.commands.progress import Progress
from rag_jax.config.command_line import parse
from rag_jax.config.files import load_config
from rag_jax.config.generation import BY_LOG_PROB, GenerationConfig
from rag_jax.data import outputs
from rag_jax.data.questions import Question, read_asked
from rag_jax.errors import InputError
from rag_jax.pipeline import identity, pretrained
from rag_jax.rag import RAG, Answer


@dataclass(frozen=True)
class AnswerCommand:
    """Answer questions with a trained model, and show the passages that the answers rest on."""

    questions: tyro.conf.Positional[tuple[str, ...]] = ()
    workdir: Path | None = None  # where train.py left its checkpoints
    checkpoint: str | None = None  # or a RAG checkpoint: a folder, or a repository of the hub[@revision]
    index: Path | None = None  # the knowledge: a store, or an index in another layout; None: the workdir's own
    closed_book: bool = False  # ask a model that came without knowledge all the same
    long_questions: Literal["refuse", "cut"] | None = None  # those that are too long; None: as the model's config says
    file: Path | None = None  # or the questions of a file: JSON lines {"id": …, "question": …}
    output: Path | None = None  # write the answers here as they come, as JSON lines; the same command resumes
    num_docs: int | None = None  # K, the passages to read; None: as in training
    prefix: str = ""  # how every answer begins
    labels: tuple[str, ...] = ()  # choose the likeliest of these instead of writing an answer
    seed: int = 0  # of samples
    batch_size: int = 64
    decoding: tyro.conf.OmitArgPrefixes[GenerationConfig] = field(default_factory=GenerationConfig)
    usual: tyro.conf.Suppress[GenerationConfig] = field(
        default_factory=GenerationConfig
    )  # the model's own, which `decoding` begins as

    def run(self) -> None:
        """Answer, then show or write. Raises `InputError` for what cannot be asked."""
        if bool(self.questions) == bool(self.file):
            raise InputError("ask QUESTIONS or name a --file of them, one of the two")
        asked = read_asked(self.file) if self.file else [(str(n), text) for n, text in enumerate(self.questions, 1)]
        if self.output:
            outputs.check_place(self.output)
        rag = self._model()
        named = [Question(id, question, ()) for id, question in asked]
        rag.check(named, num_docs=self.num_docs, **asdict(self.decoding))
        if self.output:
            self._write(self.output, rag, asked)
        else:
            self._show(rag, [question for _, question in asked])

    def _show(self, rag: RAG, questions: list[str]) -> None:
        """Print answers: a file's as they come, others in the order of the questions."""
        found, console = self._answers(rag, questions), Console()
        order = BY_LOG_PROB if self.labels else self.decoding.ranking(rag.components.config.model)
        for number, answer in found if self.file else sorted(found, key=lambda each: each[0]):
            show(console, questions[number], answer, order)

    def _write(self, output: Path, rag: RAG, asked: list[tuple[str, str]]) -> None:
        """Append answers to a file as they come, after those that it has; when all are there, put them in order."""
        ids, questions = [id for id, _ in asked], [question for _, question in asked]
        told = [asked, self.num_docs, self.prefix, self.labels, self.seed, asdict(self.decoding)]
        with outputs.resumable_lines(output, identity.of_answers(rag.components, rag.params, told)) as lines:
            done = {number for number, id in enumerate(ids) if id in lines}
            try:
                with Progress("answering", len(asked), len(done), of="questions") as progress:
                    for number, answer in progress.counted(self._answers(rag, questions, done)):
                        lines.append(ids[number], as_json(questions[number], answer))
                lines.arrange(ids)
            except KeyboardInterrupt:
                kept = f"{len(lines):,} of {len(asked):,} answers are in {output}"
                raise KeyboardInterrupt(f"interrupted: {kept}; run the same command to resume") from None

    def _model(self) -> RAG:
        if (self.workdir is None) == (self.checkpoint is None):
            raise InputError("name a --workdir or a --checkpoint, one of the two")
        if self.workdir is not None:
            rag = RAG.from_workdir(self.workdir, self.index)
        else:
            rag = RAG.from_pretrained(str(self.checkpoint), self.index)
        config, source = rag.components.config, self.workdir or self.checkpoint
        if self.closed_book and not config.data.is_closed_book:
            raise InputError(f"{source}: has an index; leave --closed-book out")
        if config.data.is_closed_book and config.data.train is None and not self.closed_book:
            remedy = "name one, --index DIR, or ask without passages, --closed-book"
            raise InputError(f"{source}: came without the index that it was trained with; {remedy}")
        return rag if self.long_questions is None else rag.with_long_questions(self.long_questions)

    def _answers(self, rag: RAG, questions: list[str], skip: Collection[int] = ()) -> Iterator[tuple[int, Answer]]:
        """(number, answer) of each question that is not to `skip`, as they come."""
        fixed = {"num_docs": self.num_docs, "batch_size": self.batch_size, "skip": skip}
        if not self.labels:
            return rag.stream(questions, prefixes=self.prefix, seed=self.seed, **fixed, **asdict(self.decoding))
        if self.decoding != self.usual or self.prefix:
            raise InputError("labels are ranked as they are; leave prefix and the options of decoding")
        return rag.stream_choices(questions, self.labels, **fixed)


def answer(arguments: Sequence[str]) -> None:
    """`rag-jax answer`; what is not given on the command line is as the model's own config says."""
    sources = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for name in ("--workdir", "--checkpoint"):
        sources.add_argument(name, nargs="?")
    named, _ = sources.parse_known_args(arguments)
    usual = usual_decoding(named.workdir and Path(named.workdir), named.checkpoint)
    remedy = "rag-jax answer --help lists all options"
    default = AnswerCommand(decoding=usual, usual=usual)
    parse(AnswerCommand, arguments, remedy=remedy, prog="rag-jax answer", default=default).run()


def usual_decoding(workdir: Path | None, checkpoint: str | None) -> GenerationConfig:
    """How a model is decoded, unless asked for otherwise."""
    if workdir is not None:
        return load_config(workdir / "config.json").decoding
    return pretrained.describe(checkpoint).decoding if checkpoint is not None else GenerationConfig()


def as_json(question: str, answer: Answer) -> dict[str, Any]:
    """An answer as a line of an output file, but for its id."""
    return {"question": question, **_fields(answer), "alternatives": [*map(_fields, answer.alternatives)]}


def _fields(answer: Answer) -> dict[str, Any]:
    return {
        "answer": answer.text,
        "log_prob": answer.log_prob,
        "score": answer.score,
        "tokens": answer.tokens,
        "passages": [passage._asdict() for passage in answer.passages],
        "token_posteriors": answer.token_posteriors.tolist(),
    }


def show(console: Console, question: str, found: Answer, order: str = "") -> None:
    """Print one answered question; several answers with the `order` that they come in."""
    several = bool(found.alternatives)
    console.print(f"\n[bold]{escape(question)}[/bold]{f'   {order}' if several else ''}", highlight=False)
    for answer in (found, *found.alternatives):
        told = f"log p(y|x) = {answer.log_prob:.4f}" + (f"   score = {answer.score:.4f}" if several else "")
        console.print(f"[bold green]{escape(answer.text)}[/bold green]   {told}", highlight=False)
    table = Table(box=None, pad_edge=False)
    table.add_column("prior", justify="right")
    table.add_column("posterior", justify="right")
    table.add_column("passage", overflow="fold")
    for passage in found.passages:
        prior = f"{math.exp(passage.log_prior):.3f}"
        table.add_row(prior, f"{passage.posterior:.3f}", escape(f"{passage.title} / {passage.text}"))
    console.print(table)
