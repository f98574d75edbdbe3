"""What is refused before anything is read at length, compiled or written: numbers that make no run, a wrong workdir."""

import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax

from rag_jax.errors import InputError
from rag_jax.knowledge import manifest
from rag_jax.run import config as configs
from rag_jax.run import devices
from rag_jax.run.config import Config

FREE = (
    # these may change when a run goes on: they change what it costs, what is told and how it is judged, not its course
    "mesh",
    "watch",
    "decoding",
    "compute.cache",
    "data.evaluation",
    "closed_book",
    "save_every",
    "eval_every",
    "eval_batch",
    "max_bad_steps",
)


def check(config: Config, workdir: Path) -> None:
    """Refuse what cannot be run. Raises `InputError`."""
    check_numbers(config)
    devices.check(config)
    check_course(config, workdir / "config.json")
    check_together(config, workdir)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{workdir}: cannot be made ({error.strerror}); choose another --workdir") from None
    if not os.access(workdir, os.W_OK):
        raise InputError(f"{workdir}: cannot be written; choose another --workdir")


def check_numbers(config: Config) -> None:
    """Refuse numbers that make no run."""
    for name in ("steps", "batch_size", "log_every", "save_every", "eval_batch", "max_bad_steps"):
        if getattr(config, name) < 1:
            raise InputError(f"{name} is {getattr(config, name)}; give 1 or more")
    if config.eval_every is not None and config.eval_every < 1:
        raise InputError(f"eval_every is {config.eval_every}; give 1 or more, or None")
    retriever, inside = config.retriever, config.retriever.engine in ("device", "fixed")
    if retriever.staleness < 0 or (retriever.staleness and inside):
        told = f"retriever.staleness is {retriever.staleness} with the engine {retriever.engine}"
        raise InputError(f"{told}; give 0, or more for a search on the host")
    lengths = config.generator.lengths
    if any(a >= b for a, b in pairwise((0, *lengths, config.generator.max_input))):
        told = f"generator.lengths are {lengths}, max_input {config.generator.max_input}"
        raise InputError(f"{told}; give ascending numbers below max_input")
    for _, prompt in config.buckets:
        if prompt >= config.generator.max_input:
            raise InputError(f"buckets: {prompt} question tokens leave no room in generator.max_input; raise it")


def check_course(config: Config, path: Path) -> None:
    """Refuse to go on with a run whose config said otherwise, key by key, unless the key may change."""
    if not path.exists():
        return
    was = dict(_values(configs.load(path)))
    changed = [
        f"{name} was {was[name]!r}, is {value!r}"
        for name, value in _values(config)
        if was[name] != value and not any(f"{name}.".startswith(f"{each}.") for each in FREE)
    ]
    if changed:
        remedy = "set it back, or choose another --workdir"
        raise InputError(f"{path}: belongs to a run with another config ({'; '.join(changed)}); {remedy}")


def check_together(config: Config, workdir: Path) -> None:
    """Several processes read what one has made before: an index and a vocabulary are not built by all of them."""
    if jax.process_count() == 1:
        return
    index, words = config.data.index or workdir / "index", workdir / "tokenizer.json"
    remedy = "make it in one process beforehand, with rag-jax index or by this command with --steps 1"
    if not config.data.is_closed_book and not (index / manifest.FILE).exists():
        raise InputError(f"{index}: no knowledge store there, and several processes do not build one; {remedy}")
    if not (config.generator.checkpoint or config.generator.tokenizer or words.exists()):
        raise InputError(f"{words}: no vocabulary there, and several processes do not learn one; {remedy}")


def _values(config: Config) -> Iterator[tuple[str, Any]]:
    """Every dotted name with its value."""
    for name in configs.names():
        value: Any = config
        for each in name.split("."):
            value = getattr(value, each)
        yield name, str(value) if isinstance(value, Path) else value
