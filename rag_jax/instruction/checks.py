"""Checks of an instruction tuning run before anything is loaded, compiled or written."""

from math import inf
from pathlib import Path

from rag_jax import hub
from rag_jax.config.instruction import InstructionConfig
from rag_jax.data import validation
from rag_jax.errors import InputError
from rag_jax.hub import loading
from rag_jax.parallel import devices
from rag_jax.pipeline import checkpoint_folders
from rag_jax.pipeline.finetuning import FineTuning
from rag_jax.training.checks import Bounds, check_bounds, check_resumable
from rag_jax.training.workdir import CONFIG, check_ownership

COUNTS = (
    *("mesh.data", "mesh.fsdp", "mesh.tensor", "compute.accumulate"),
    *("steps", "batch_size", "length_groups", "log_every", "save_every", "eval_every", "max_bad_steps"),
    *("generator.max_length", "generator.max_input", "generator.max_passage", "generator.passages_per_prompt"),
    *("generator.lora.rank", "retriever.num_docs", "retriever.max_question", "data.passage_words"),
)
BOUNDS: Bounds = (
    (COUNTS, lambda value: value >= 1, "give 1 or more"),
    (("generator.lora.alpha",), lambda value: 0 < value < inf, "give more than 0"),
    (("optimizer.learning_rate", "optimizer.weight_decay"), lambda value: 0 <= value < inf, "give 0 or more"),
    (("optimizer.warmup",), lambda value: value >= 0, "give 0 or more"),
    (("optimizer.clip",), lambda value: value > 0, "give more than 0; inf clips nothing"),
    (("retriever.irrelevant",), lambda value: 0 <= value <= 1, "give 0 to 1"),
    (("seed",), lambda value: 0 <= value < 2**32, "give 0 to 2**32 - 1"),
)


def finetuning(config: InstructionConfig) -> FineTuning:
    """What is trained of the generator."""
    return FineTuning("generator", True, config.generator.train, config.generator.lora)


def check(config: InstructionConfig, workdir: Path) -> list[str]:
    """Reject a config that cannot run in this workdir. Returns a line per key changed since the run started."""
    check_values(config)
    devices.check(config)
    check_ownership(workdir)
    for folder in (checkpoint_folders.GENERATOR, checkpoint_folders.ADAPTER):
        checkpoint_folders.check(workdir / folder)
    return check_resumable(config, workdir / CONFIG)


def check_values(config: InstructionConfig) -> None:
    """Reject invalid hyperparameters and values of the wrong type."""
    validation.validate_dataclass(InstructionConfig, config)
    check_bounds(config, BOUNDS)
    for path, weight in config.data.train:
        if not 0 < weight < inf:
            raise InputError(f"data.train: the weight of {path} is {weight}; give more than 0, or leave the file out")
    if config.compute.prefill_chunk is not None:
        raise InputError(f"compute.prefill_chunk is {config.compute.prefill_chunk}, of inference; leave it out")
    plan = finetuning(config)
    plan.check_settings()
    if config.generator.train == () and not plan.has_adapters:
        raise InputError("generator.train is empty, and nothing is trained; give it a pattern, or None")
    _check_retriever(config)
    pieces = config.length_groups * config.compute.accumulate * config.mesh.data * config.mesh.fsdp
    if config.batch_size % pieces:
        parts = "length_groups x compute.accumulate x mesh.data x mesh.fsdp"
        raise InputError(f"batch_size {config.batch_size} is no multiple of {pieces} ({parts}); change one of them")


def check_generator(source: str) -> None:
    """Reject a generator that is no language model or has no chat template; its weights are not read."""
    family = hub.generator_family(source)
    if not family.is_decoder_only:
        problem = f"{family.name} reads by an encoder, and instruction tuning needs a decoder-only model"
        raise InputError(f"{source}: {problem}; name another generator.checkpoint")
    stored = loading.describe_generator(source).tokenizer
    if stored is None or not stored.settings.get("chat_template"):
        remedy = "save its tokenizer with one (chat_template in tokenizer_config.json)"
        raise InputError(f"{source}: the tokenizer has no chat template, which says how messages are written; {remedy}")


def _check_retriever(config: InstructionConfig) -> None:
    """Reject a search without the tower or the vectors that it needs."""
    data, retriever = config.data, config.retriever
    if data.index is not None and data.passages is not None:
        raise InputError(f"data.index is {data.index}, data.passages {data.passages}; leave one of them out")
    if retriever.tower is not None and data.index is None:
        remedy = "name data.index, or leave the tower out to search by BM25"
        raise InputError(f"retriever.tower is {retriever.tower}, and there is no index of its vectors; {remedy}")
    together = config.generator.passages_per_prompt
    if together > retriever.num_docs:
        problem = f"generator.passages_per_prompt is {together}, retriever.num_docs {retriever.num_docs}"
        raise InputError(f"{problem}; retrieve as many or more")
