"""Convert a workdir to a Hugging Face checkpoint, or a checkpoint to a workdir."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from rag_jax import hub
from rag_jax.config.files import load_config, save_config
from rag_jax.data.outputs import check_new_folder
from rag_jax.errors import InputError
from rag_jax.hub import adapters, loading, registry, tensor_names
from rag_jax.hub.saving import written_whole
from rag_jax.pipeline import finetuning, pretrained, workdir_tokenizers
from rag_jax.pipeline.assembly import compose
from rag_jax.pipeline.checkpoints import Checkpoints
from rag_jax.pipeline.components import Components
from rag_jax.pipeline.trained import load_components, load_trained, restore

NetworkName = Literal["question_tower", "generator"]
WHOLE = "convert it without --adapter"


class Mapped(NamedTuple):
    """A pair of corresponding names: a parameter (one entry for all layers) or a setting."""

    here: str
    there: str
    tensors: int = 0


def convert(source: str, target: Path) -> list[Mapped]:
    """Convert a workdir to a RAG checkpoint that transformers loads, or such a checkpoint to a workdir.

    A decoder-only generator and its question tower become two checkpoints, which hold no prompt and no K.

    A new workdir holds the parameters as step 0, for answering and for runs that `start_from` it. It reads the sizes of
    its networks from `source`, which must not move. The target is written completely or not at all.

    Args:
        source: a workdir; otherwise a folder, or a repository of the hub.
        target: does not exist yet, or is an empty folder.

    Returns the names that were mapped. Raises `InputError` for a source that is neither, and for a target in use.
    """
    check_new_folder(target)
    if (Path(source) / "checkpoints").is_dir():
        components, params = load_trained(Path(source), tokens=False)
        hub.save(target, pretrained.checkpoint(components, params))
        return [*_parameters(components), *_settings(components)]
    return _to_workdir(str(Path(source).absolute()) if Path(source).is_dir() else source, target)


def convert_adapter(workdir: Path, target: Path, network: NetworkName) -> list[Mapped]:
    """Write the LoRA adapters of a run's question tower or generator as a folder that peft loads onto their base.

    Returns the names that were mapped. Raises `InputError` for a workdir without such adapters, for those of weights
    that no checkpoint holds, and for a target in use.
    """
    check_new_folder(target)
    components, config = load_components(workdir, tokens=False), load_config(workdir / "config.json")
    plan: finetuning.FineTuning = getattr(finetuning.of(config), network)
    if not plan.has_adapters:
        raise InputError(f"{workdir}: its {network} has no adapters; {WHOLE}")
    if plan.train:
        raise InputError(f"{workdir}: its {network} was trained beside its adapters too, {plan.key}.train; {WHOLE}")
    base, description, modules = _base(components, network, workdir)
    params = getattr(restore(workdir, components), network)
    kernels = plan.kernels(params)
    adapters.save(target, params, plan.lora.alpha, modules, adapters.Description(base, description))
    return [Mapped(f"{network}/{each}", f"{adapters.ROOT}{modules.of(each)}", len(adapters.PARTS)) for each in kernels]


def _base(components: Components, network: NetworkName, workdir: Path) -> tuple[str, str, adapters.Modules]:
    """The checkpoint that a network's adapters belong to, peft's task type, and the names of torch's modules."""
    config = components.config
    is_tower = network == "question_tower"
    base, adapter = (
        (config.retriever.tower, config.retriever.adapter)
        if is_tower
        else (config.generator.checkpoint, config.generator.adapter)
    )
    if base is None or adapter is not None or config.start_from is not None:
        origin = adapter or config.start_from or "random weights"
        problem = f"its adapters belong to weights that no checkpoint holds: the run started from {origin}"
        raise InputError(f"{workdir}: {problem}; {WHOLE}")
    if is_tower:
        return base, "FEATURE_EXTRACTION", loading.tower_modules(base)
    described = registry.generator_of(components.generator.config).files(
        pretrained.checkpoint(components, components.initial_params).generator
    )
    is_encoder_decoder = described["config.json"].get("is_encoder_decoder")
    task = "SEQ_2_SEQ_LM" if is_encoder_decoder else "CAUSAL_LM"
    return base, task, loading.generator_modules(base)


def _to_workdir(source: str, target: Path) -> list[Mapped]:
    components = compose(pretrained.describe(source))
    with written_whole(target) as temporary:
        checkpoints = Checkpoints(temporary)
        checkpoints.save_params(components.initial_params)
        checkpoints.close()
        workdir_tokenizers.save(components, temporary)
        save_config(components.config, temporary / "config.json")
    return [*_parameters(components), *_settings(components)]


def _parameters(components: Components) -> Iterator[Mapped]:
    """The parameters of both networks and their tensors in the checkpoint; kernels are transposed."""
    in_parts = hub.is_in_parts(components.generator.config)
    places = ("question_encoder: ", "generator: ") if in_parts else ("rag.question_encoder.", "rag.generator.")
    layout = registry.tower_of(components.bi_encoder.config).layout(components.bi_encoder.config, "question")
    tower = tensor_names.summary(components.initial_params.question_tower, layout.names, f"{places[0]}{layout.prefix}")
    generator = registry.generator_of(components.generator.config).names
    generator = tensor_names.summary(components.initial_params.generator, generator, places[1])
    for network, names in (("question_tower", tower), ("generator", generator)):
        yield from (Mapped(f"{network}/{here}", *there) for here, there in names.items())


def _settings(components: Components) -> Iterator[Mapped]:
    checkpoint: hub.RagCheckpoint = pretrained.checkpoint(components, components.initial_params)
    in_parts = hub.is_in_parts(components.generator.config)  # no config.json for the two together
    for name, value in ({} if in_parts else dataclasses.asdict(checkpoint.reading)).items():
        yield Mapped(f"{name} = {value!r}", "config.json")
    for name, value in checkpoint.generator.generation.items():
        yield Mapped(f"{name} = {value!r}", "generation_config.json")
