"""Checks before anything is loaded, compiled or written: invalid hyperparameters, the wrong workdir."""

from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import Any

import jax

from rag_jax.config import keys
from rag_jax.config.config import Config
from rag_jax.config.files import AnyConfig, load_config_of
from rag_jax.core.decode.search import GenerationLimits
from rag_jax.data import validation
from rag_jax.errors import InputError
from rag_jax.index import manifest, ownership
from rag_jax.index.engines.registry import ENGINES
from rag_jax.parallel import devices
from rag_jax.pipeline import checkpoint_folders, distillation, finetuning, networks, own_index, refreshing
from rag_jax.pipeline.assembly import index_folder
from rag_jax.pipeline.checkpoints import is_finished
from rag_jax.training.provenance import RELOCATABLE
from rag_jax.training.workdir import CONFIG, check_ownership

MAY_CHANGE = (
    # keys that may change when a run is resumed: they affect cost, logging and evaluation, not what is learnt
    "mesh",
    "watch",
    "decoding",
    "generator.start",
    "retriever.interpolation",
    "compute.cache",
    "compute.prefill_chunk",
    "data.evaluation",
    # a run that refused long questions has none; one that cut them refuses them when resumed without the option
    "data.long_questions",
    "closed_book",
    "log_every",
    "save_every",
    "eval_every",
    "eval_batch",
    "max_bad_steps",
)

WRITTEN_BEFORE = {"generator.dropout": 0.1}  # what earlier versions saved where the value is None now

COUNTS = (
    *("steps", "batch_size", "log_every", "save_every", "eval_every", "eval_batch", "max_bad_steps"),
    *("data.passage_words", "retriever.num_docs", "retriever.max_question", "retriever.max_passage"),
    *("generator.width", "generator.encoder_layers", "generator.decoder_layers", "generator.heads"),
    *("generator.ffn_width", "generator.max_passage", "generator.max_target", "generator.vocabulary"),
    *("retriever.lora.rank", "generator.lora.rank", "compute.prefill_chunk"),
    *("retriever.refresh_every", "retriever.candidates"),
)
RATES = ("optimizer.learning_rate", "optimizer.tower_learning_rate", "optimizer.adam_learning_rate")
NOT_NEGATIVE = (*RATES, "optimizer.weight_decay", "generator.init_std", "retriever.distillation.weight")
POSITIVE = (
    *("retriever.vector_norm", "retriever.lora.alpha", "generator.lora.alpha"),
    *("retriever.distillation.temperature", "retriever.distillation.teacher_temperature"),
)
Bounds = tuple[tuple[tuple[str, ...], Callable[[float], bool], str], ...]
"""Keys of a config, the condition on each value that is not None, and the remedy."""
BOUNDS: Bounds = (
    (COUNTS, lambda value: value >= 1, "give 1 or more"),
    (NOT_NEGATIVE, lambda value: 0 <= value < inf, "give 0 or more"),
    (("optimizer.warmup",), lambda value: value >= 0, "give 0 or more"),
    (("generator.dropout", "optimizer.label_smoothing"), lambda value: 0 <= value < 1, "give 0 or more, below 1"),
    (POSITIVE, lambda value: 0 < value < inf, "give more than 0"),
    (("seed",), lambda value: 0 <= value < 2**32, "give 0 to 2**32 - 1"),
    (("optimizer.clip",), lambda value: value > 0, "give more than 0; inf clips nothing"),
)

LONGEST, CUT = (
    "retriever.max_question",
    "data.long_questions",
)  # unless questions are cut, max_question only limits what is accepted


def check(config: Config, workdir: Path) -> list[str]:
    """Reject a config that cannot run in this workdir. Returns a line per key changed since the run started."""
    check_numbers(config)
    devices.check(config)
    check_ownership(workdir)
    check_together(config, workdir)
    if config.data.passages is not None and not config.data.is_closed_book:
        check_index(index_folder(config, workdir))
    if config.retriever.train_passages:
        if not is_finished(workdir, config.steps):
            own_index.check(workdir / refreshing.FOLDER)
        checkpoint_folders.check(workdir / checkpoint_folders.TOWERS)
    return check_resumable(config, workdir / CONFIG)


def check_numbers(config: Config) -> None:
    """Reject invalid hyperparameters and values of the wrong type."""
    validation.validate_dataclass(Config, config)
    check_bounds(config, BOUNDS)
    generator = config.generator
    if generator.adapter is not None and generator.checkpoint is None:
        raise InputError(f"generator.adapter is {generator.adapter}; name the checkpoint too that it was trained on")
    networks.generator_architecture(config)
    networks.check_heads(config)
    check_prior(config)
    check_passages_read(config)
    distillation.check(config)
    finetuning.check(config)
    refreshing.check(config)
    try:
        config.decoding.limits(config.model, GenerationLimits((0,), 0, generator.max_target))
    except InputError as error:
        raise InputError(f"decoding: {error}") from None
    retriever, inside = config.retriever, not ENGINES[config.retriever.engine].on_host
    if retriever.staleness < 0 or (retriever.staleness and inside):
        problem = f"retriever.staleness is {retriever.staleness} with the engine {retriever.engine}"
        raise InputError(f"{problem}; give 0, or more for a search on the host")
    apart = config.searches and ENGINES[retriever.engine].searches_apart
    if apart and retriever.staleness and config.mesh.size > 1:
        # From a thread: the devices could begin its collectives and the step's in different orders, and wait forever.
        problem = f"retriever.staleness is {retriever.staleness}, and the engine {retriever.engine} searches the mesh"
        raise InputError(f"{problem} beside the training step; give 0, or one device")
    if any(a >= b for a, b in pairwise((0, *generator.lengths, generator.max_input))):
        problem = f"generator.lengths are {generator.lengths}, max_input {generator.max_input}"
        raise InputError(f"{problem}; give ascending numbers below max_input")
    if generator.lengths and config.compute.prefill_chunk is not None:
        problem = f"compute.prefill_chunk is {config.compute.prefill_chunk}, generator.lengths {generator.lengths}"
        raise InputError(f"{problem}: packed prompts are read at once; leave one of them out")
    if not config.buckets:
        raise InputError("buckets are none; give pairs of question tokens, as ((32, 36), (64, 68))")
    if min(map(min, config.buckets)) < 1:
        raise InputError(f"buckets are {config.buckets}; give pairs of 1 token or more")
    for _, prompt in config.buckets:
        if prompt >= generator.max_input:
            raise InputError(f"buckets: {prompt} question tokens leave no room in generator.max_input; raise it")
    if retriever.max_question >= generator.max_input:
        problem = f"retriever.max_question is {retriever.max_question}, generator.max_input {generator.max_input}"
        raise InputError(f"{problem}; give a question fewer tokens than the whole input")


def check_bounds(config: AnyConfig, bounds: Bounds) -> None:
    """Reject values outside their bounds, and numbers that programs cannot hold; None is inside."""
    for name in keys.names(type(config)):
        if name != "seed":
            validation.check_int32(name, keys.value(config, name))
    for names, fits, remedy in bounds:
        for name in names:
            value = keys.value(config, name)
            if value is not None and not fits(value):
                raise InputError(f"{name} is {value}; {remedy}")


def check_prior(config: Config) -> None:
    """Reject a prior over more passages than are read where nothing learns from it."""
    c = config.retriever
    if c.prior_docs is None:
        return
    asked = f"retriever.prior_docs is {c.prior_docs}"
    if c.prior_docs < c.num_docs:
        raise InputError(f"{asked}, retriever.num_docs {c.num_docs}; give as many or more")
    if not ENGINES[c.engine].in_step:
        raise InputError(
            f"{asked}, but the engine {c.engine} returns num_docs passages; give None, or the engine device"
        )
    if c.distillation.objective != "none":
        raise InputError(f"{asked}, but a distillation compares the passages that are read; give one of the two")
    if finetuning.retriever_mode(config) != "trained" or config.data.is_closed_book:
        raise InputError(f"{asked}, but the prior is not trained; give None, or train the retriever by model token")
    if config.generator.passages_per_prompt > 1:
        raise InputError(
            f"{asked}, but generator.passages_per_prompt is {config.generator.passages_per_prompt}; give 1"
        )


def check_passages_read(config: Config) -> None:
    """Reject a mode and an engine that name different passages for training to read."""
    c = config.retriever
    if c.mode == "gold" and ENGINES[c.engine].reads_question_file:
        problem = f"retriever.mode is gold, but the engine {c.engine} reads the passage_ids of the question file"
        raise InputError(f"{problem}; give another mode, or the engine device")


def check_resumable(config: AnyConfig, path: Path) -> list[str]:
    """Reject a config that differs from the saved one in a key that must not change. Returns the other changes."""
    if not path.exists():
        return []
    was, refused, changes = dict(_values(load_config_of(type(config), path))), [], []
    now = dict(_values(config))
    for name, value in now.items():
        if was[name] == value or (value is None and was[name] == WRITTEN_BEFORE.get(name)):
            continue
        if name == "steps" and value > was[name]:
            changes.append(f"steps: {was[name]} before, {value} now{RATES_TO_COME}")
        elif _among(name, (*MAY_CHANGE, *RELOCATABLE)) or (
            name == LONGEST and CUT in now and "cut" not in (was[CUT], now[CUT])
        ):
            changes.append(f"{name}: {was[name]} before, {value} now")
        else:
            refused.append(f"{name} was {was[name]!r}, is {value!r}")
    if refused:
        remedy = "set it back, or choose another --workdir"
        raise InputError(f"{path}: belongs to a run with another config ({'; '.join(refused)}); {remedy}")
    return changes


def check_together(config: Config, workdir: Path) -> None:
    """Several processes need an index and a vocabulary that one process has built before."""
    if jax.process_count() == 1:
        return
    index, words = index_folder(config, workdir), workdir / "tokenizer.json"
    learnt = [words] if config.start_from is None else [words, config.start_from / words.name]
    remedy = "make it in one process, by this command with --steps 1 and another --workdir, and name what that made"
    if not config.data.is_closed_book and not (index / manifest.FILE).exists():
        raise InputError(f"{index}: no knowledge store there, and several processes do not build one; {remedy}")
    if not (config.generator.checkpoint or config.generator.tokenizer or any(each.exists() for each in learnt)):
        raise InputError(f"{words}: no vocabulary there, and several processes do not learn one; {remedy}")


def check_index(folder: Path) -> None:
    """Reject a folder that holds something other than an index."""
    if not (folder / manifest.FILE).exists():
        ownership.check_available(folder)


def _values(config: AnyConfig) -> Iterator[tuple[str, Any]]:
    """Every dotted name with its value."""
    for name in keys.names(type(config)):
        value = keys.value(config, name)
        yield name, str(value) if isinstance(value, Path) else value


def _among(name: str, keys: Iterable[str]) -> bool:
    """Whether a key is one of some, or below one of them."""
    return any(f"{name}.".startswith(f"{each}.") for each in keys)


RATES_TO_COME = "; the learning rate decays towards the new end from here on, as it did towards the old one before"
