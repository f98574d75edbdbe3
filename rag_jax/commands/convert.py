"""`rag-jax convert`: a workdir to a checkpoint of transformers' RAG, or back."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from rag_jax.config.command_line import parse
from rag_jax.pipeline import convert as conversion


@dataclass(frozen=True)
class ConvertCommand:
    """Make a checkpoint of transformers' RAG from a workdir, or a workdir from such a checkpoint."""

    source: tyro.conf.Positional[str]  # a workdir, or a folder or a repository of the hub[@revision]
    target: tyro.conf.Positional[Path]  # the folder to be made


def convert(arguments: Sequence[str]) -> None:
    """`rag-jax convert`: prints what was mapped, and what to do next."""
    remedy = "rag-jax convert --help lists all options"
    command = parse(ConvertCommand, arguments, remedy=remedy, prog="rag-jax convert")
    found = conversion.convert(command.source, command.target)
    to_workdir = (command.target / "checkpoints").is_dir()
    for here, there, tensors in found:
        print(here, "<-" if to_workdir else "->", there, f"({tensors})" if tensors else "")
    kind, option = ("workdir", "--workdir") if to_workdir else ("checkpoint of transformers", "--checkpoint")
    print(f"{command.target}: a {kind}, {sum(each.tensors for each in found)} tensors.")
    print(f'Next: rag-jax answer "YOUR QUESTION" {option} {command.target} --index INDEX')
