"""An instruction tuning run: check the config, start or resume, train, evaluate, save the generator."""

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rag_jax import hub
from rag_jax.config.files import load_config_of
from rag_jax.config.instruction import InstructionConfig
from rag_jax.data import files, strict_json
from rag_jax.errors import InputError, warn
from rag_jax.hub import adapters, loading, saving
from rag_jax.instruction.asking import answering
from rag_jax.instruction.checks import check, check_generator, finetuning
from rag_jax.instruction.examples import File, Mixture, Reader
from rag_jax.instruction.loop import Run, train
from rag_jax.models.architecture import changed_fields
from rag_jax.parallel import devices
from rag_jax.pipeline import checkpoint_folders, digests, length_limits
from rag_jax.pipeline.assembly import load_generator, required_path
from rag_jax.pipeline.checkpoints import Checkpoints, HostState, finished_params, saved_host_state
from rag_jax.terminal import Terminal
from rag_jax.training.metric_logger import seconds_trained
from rag_jax.training.provenance import (
    NETWORKS,
    QUESTIONS,
    Dependencies,
    check_same,
    may_have_begun_from,
    start_dependency,
)
from rag_jax.training.run import record_config
from rag_jax.training.workdir import CONFIG, locked
from rag_jax.types import Params

RESULTS = "results.json"
console = Terminal()


def train_and_evaluate(config: InstructionConfig, workdir: Path) -> dict[str, Any] | None:
    """Train, or resume from the newest checkpoint; then evaluate and save the generator.

    Writes WORKDIR/generator, with LoRA also WORKDIR/adapter, and results.json. Returns the results; None in every
    process but the first. Invalid input is reported before anything is written.
    """
    check(config, workdir)
    with locked(workdir) if devices.is_first() else nullcontext():
        changed = check(config, workdir)  # again: another run may have held the lock until now
        devices.enable_compilation_cache(config)
        run = load(config)
        reader, host_state = Reader(config, run.generator), saved_host_state(workdir)
        judged = reader.read(required_path(config.data.evaluation, "data.evaluation"), held_out=True)
        first = start_params(run, host_state)
        found = finished_params(workdir, config.steps, run.with_adapters(run.generator.params))
        if found is None:
            params = _fit(run, workdir, reader, judged, first, changed)
        else:
            params = run.spread(found)
            check_same(host_state, {NETWORKS: _network_digest(run)}, config, workdir)
            record_config(config, workdir, changed)
            first = _as_it_was(run, first, host_state)
        results = measure(run, params, first, judged)
        params = devices.whole(params)
        if not devices.is_first():
            devices.wait_for_all("the results are written")
            return None
        save(run, workdir, params)
        results |= {"steps": config.steps, "train_seconds": seconds_trained(workdir)}
        files.write_atomically(workdir / RESULTS, strict_json.dumps(results, indent=2) + "\n")
        devices.wait_for_all("the results are written")
    return results


def load(config: InstructionConfig) -> Run:
    """The generator of the config, and the devices. Raises `InputError` for one that cannot be trained as it says."""
    source = config.generator.checkpoint
    check_generator(source)
    generator = load_generator(answering(config))
    limit = {"generator.max_length": config.generator.max_length}
    length_limits.check_positions(source, generator.config.max_positions, limit)
    finetuning(config).check_names(generator.params)
    return Run(config, generator, devices.mesh(config))


def start_params(run: Run, host_state: HostState | None) -> Params | None:
    """The network's parameters that training starts from: the checkpoint's, or those of the run in `start_from`.

    None, with a warning, where those are gone, and this run has begun and does not need them.
    """
    source = run.config.start_from
    if source is None:
        return run.generator.params
    if (source / "checkpoints").is_dir():  # Checkpoints creates the folder
        former = dataclasses.replace(run, config=load_config_of(InstructionConfig, source / CONFIG))
        checkpoints = Checkpoints(source)
        found = checkpoints.restore_params(former.with_adapters(run.generator.params))
        checkpoints.close()
        if found is not None:
            return former.merged(found)
    if host_state is not None:
        warn(f"{source}: no checkpoint there any more; results lack the likelihood before training")
        return None
    raise InputError(f"{source}: no checkpoint there; train it first, or leave start_from out")


def _as_it_was(run: Run, first: Params | None, host_state: HostState | None) -> Params | None:
    """What a finished run began from; None, with a warning, where the run in `start_from` has changed since."""
    source = run.config.start_from
    if source is None or first is None or may_have_begun_from(host_state, first):
        return first
    warn(f"{source}: not as it was when this run began; results lack the likelihood before training")
    return None


def measure(run: Run, params: Params, first: Params | None, judged: File) -> dict[str, Any]:
    """The likelihood of held-out responses, per token, after training and before."""
    examples = [variants[0] for variants in judged.items]
    found = {"nll": run.negative_log_likelihood(params, examples)}
    if first is not None:
        found["nll_before"] = run.negative_log_likelihood(run.spread(run.with_adapters(first)), examples)
    with np.errstate(over="ignore"):
        perplexities = {name.replace("nll", "perplexity"): float(np.exp(value)) for name, value in found.items()}
    counts = {"conversations": len(examples), "response_tokens": sum(len(each.targets) for each in examples)}
    return found | perplexities | counts


def save(run: Run, workdir: Path, params: Params) -> None:
    """Write the generator as transformers loads it, adapters merged, and adapters as peft loads them onto their base.

    There is no adapter beside weights that no checkpoint holds.
    """
    config, bundle, source = run.config, run.generator, run.config.generator.checkpoint
    generation = loading.describe_generator(source).generation
    merged, tokenizer = run.merged(params), bundle.tokenizer.tokenizer
    checkpoint = hub.GeneratorCheckpoint(bundle.config, merged, tokenizer, generation, bundle.tokenizer_settings)
    writer = partial(saving.write, checkpoint=checkpoint)
    checkpoint_folders.write(workdir / checkpoint_folders.GENERATOR, {"": writer})
    plan = finetuning(config)
    if plan.has_adapters and not plan.train and config.generator.adapter is None and config.start_from is None:
        modules, description = loading.generator_modules(source), adapters.Description(source, "CAUSAL_LM")
        own = {"params": params, "alpha": plan.lora.alpha, "modules": modules, "description": description}
        writer = partial(adapters.write, **own)
        checkpoint_folders.write(workdir / checkpoint_folders.ADAPTER, {"": writer})


def _fit(run: Run, workdir: Path, reader: Reader, judged: File, first: Params | None, changed: Sequence[str]) -> Params:
    """The trained parameters, by training."""
    config, host_state, mixture = run.config, saved_host_state(workdir), reader.train()
    depends = check_same(host_state, dependencies(run, mixture, first), config, workdir)
    record_config(config, workdir, [*changed, *_summary(mixture)])
    examples = [variants[0] for variants in judged.items]
    return train(run, mixture, run.generator.params if first is None else first, workdir, depends, examples)


def dependencies(run: Run, mixture: Mixture, first: Params | None) -> Dependencies:
    """Digests of everything that training depends on."""

    def example_bytes() -> Iterator[bytes]:
        for file, weight in zip(mixture.files, mixture.weights, strict=True):
            yield digests.json_bytes([weight, [len(variants) for variants in file.items]])
        for example in mixture.examples:
            yield example.tokens.tobytes() + example.targets.tobytes()

    found = {QUESTIONS: digests.digest(example_bytes()), NETWORKS: _network_digest(run)}
    return found if run.config.start_from is None else found | start_dependency(first)


def _network_digest(run: Run) -> str:
    def network_bytes() -> Iterator[bytes]:
        yield digests.json_bytes(changed_fields(run.generator.config))
        yield from digests.parameter_bytes(run.generator.params)

    return digests.digest(network_bytes())


def _summary(mixture: Mixture) -> Iterator[str]:
    """A line for each file: what it was recognised as, and its share."""
    total = sum(mixture.weights)
    for file, weight in zip(mixture.files, mixture.weights, strict=True):
        tokens = sum(len(example.targets) for variants in file.items for example in variants[:1])
        what = f"{len(file.items):,} {file.format}, {tokens:,} response tokens"
        yield f"{file.path}: {what}, {weight / total:.0%} of each batch"
