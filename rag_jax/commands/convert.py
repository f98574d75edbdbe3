"""`rag-jax convert`: a workdir to a checkpoint of transformers' RAG, or back; its adapters to peft's layout."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from rag_jax.commands.narration import say
from rag_jax.config.command_line import parse
from rag_jax.pipeline import convert as conversion


@dataclass(frozen=True)
class ConvertCommand:
    """Make a checkpoint of transformers' RAG from a workdir, or a workdir from such a checkpoint."""

    source: tyro.conf.Positional[str]  # a workdir, or a folder or a repository of the hub[@revision]
    target: tyro.conf.Positional[Path]  # the folder to be made
    adapter: conversion.NetworkName | None = None  # only the LoRA adapters of this network, in peft's layout


def convert(arguments: Sequence[str]) -> None:
    """`rag-jax convert`: prints what was mapped, and what to do next."""
    remedy = "rag-jax convert --help lists all options"
    command = parse(ConvertCommand, arguments, remedy=remedy, prog="rag-jax convert")
    if command.adapter is not None:
        _convert_adapter(command, command.adapter)
        return
    found = conversion.convert(command.source, command.target)
    to_workdir = (command.target / "checkpoints").is_dir()
    for here, there, tensors in found:
        say(f"{here} {'<-' if to_workdir else '->'} {there}" + (f" ({tensors})" if tensors else ""))
    if (command.target / "generator").is_dir():
        say(f"{command.target}: two checkpoints of transformers, {sum(each.tensors for each in found)} tensors.")
        say("Next: AutoModelForCausalLM.from_pretrained of the generator; prompt and index stay with the workdir")
        return
    kind, option = ("workdir", "--workdir") if to_workdir else ("checkpoint of transformers", "--checkpoint")
    say(f"{command.target}: a {kind}, {sum(each.tensors for each in found)} tensors.")
    say(f'Next: rag-jax answer "YOUR QUESTION" {option} {command.target} --index INDEX')


def _convert_adapter(command: ConvertCommand, network: conversion.NetworkName) -> None:
    found = conversion.convert_adapter(Path(command.source), command.target, network)
    for here, there, _ in found:
        say(f"{here} -> {there}")
    say(f"{command.target}: a LoRA adapter in peft's layout, {sum(each.tensors for each in found)} tensors.")
    key = "retriever.adapter" if network == "question_tower" else "generator.adapter"
    say(f"Next: rag-jax train CONFIG --{key} {command.target}, or PeftModel.from_pretrained in peft")
