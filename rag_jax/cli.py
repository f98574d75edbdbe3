"""The `rag-jax` command."""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rag_jax.errors import reported


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a sub-command; an `InputError` is printed as one line, with exit code 2."""
    parser = argparse.ArgumentParser(prog="rag-jax", description="Retrieval-augmented generation in JAX.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("answer", help="answer questions with a trained model, and show the passages")
    command.add_argument("questions", nargs="+", metavar="QUESTION")
    command.add_argument("--workdir", type=Path, required=True, help="where train.py left its checkpoints")
    command.add_argument("--num-docs", type=int, default=None, help="K, the passages to read (default: as in training)")
    command.set_defaults(run=answer)
    known = parser.parse_args(arguments)
    with reported():
        known.run(known)


def answer(arguments: argparse.Namespace) -> None:
    """`rag-jax answer`: the answer, its log-probability, and the passages with prior and posterior."""
    from rag_jax.rag import RAG  # here, so that --help need not wait for jax

    rag = RAG.from_workdir(arguments.workdir)
    console = Console()
    answers = rag.answer(arguments.questions, num_docs=arguments.num_docs)
    for question, found in zip(arguments.questions, answers, strict=True):
        show(console, question, found)


def show(console: Console, question: str, found) -> None:
    """Print one answered question."""
    console.print(f"\n[bold]{escape(question)}[/bold]", highlight=False)
    console.print(f"[bold green]{escape(found.text)}[/bold green]   log p(y|x) = {found.log_prob:.4f}", highlight=False)
    table = Table(box=None, pad_edge=False)
    table.add_column("prior", justify="right")
    table.add_column("posterior", justify="right")
    table.add_column("passage", overflow="fold")
    for passage in found.passages:
        prior = f"{math.exp(passage.log_prior):.3f}"
        table.add_row(prior, f"{passage.posterior:.3f}", escape(f"{passage.title} / {passage.text}"))
    console.print(table)
