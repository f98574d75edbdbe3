"""Convert a workdir to a Hugging Face checkpoint, or a checkpoint to a workdir."""

import dataclasses
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rag_jax import hub
from rag_jax.config.files import save_config
from rag_jax.data.outputs import check_new_folder
from rag_jax.errors import InputError
from rag_jax.hub import registry, tensor_names
from rag_jax.pipeline import pretrained, workdir_tokenizers
from rag_jax.pipeline.assembly import compose
from rag_jax.pipeline.checkpoints import Checkpoints
from rag_jax.pipeline.components import Components
from rag_jax.pipeline.trained import load_trained


class Mapped(NamedTuple):
    """A pair of corresponding names: a parameter (one entry for all layers) or a setting."""

    here: str
    there: str
    tensors: int = 0


def convert(source: str, target: Path) -> list[Mapped]:
    """Convert a workdir to a RAG checkpoint that transformers loads, or such a checkpoint to a workdir.

    A new workdir holds the parameters as step 0, for answering and for runs that `start_from` it. It reads the sizes of
    its networks from `source`, which must not move. The target is written completely or not at all.

    Args:
        source: a workdir; otherwise a folder, or a repository of the hub.
        target: does not exist yet, or is an empty folder.

    Returns the names that were mapped. Raises `InputError` for a source that is neither, and for a target in use.
    """
    check_new_folder(target)
    if (Path(source) / "checkpoints").is_dir():
        components, params = load_trained(Path(source))
        hub.save(target, pretrained.checkpoint(components, params))
        return [*_parameters(components), *_settings(components)]
    return _to_workdir(str(Path(source).absolute()) if Path(source).is_dir() else source, target)


def _to_workdir(source: str, target: Path) -> list[Mapped]:
    components = compose(pretrained.describe(source))
    absolute = target.absolute()
    temporary = absolute.with_name(f".{absolute.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
        checkpoints = Checkpoints(temporary)
        checkpoints.save_params(components.initial_params)
        checkpoints.close()
        workdir_tokenizers.save(components, temporary)
        save_config(components.config, temporary / "config.json")
        os.replace(temporary, target)
    except OSError as error:
        raise InputError(f"{target}: cannot be written ({error.strerror}); choose another place") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return [*_parameters(components), *_settings(components)]


def _parameters(components: Components) -> Iterator[Mapped]:
    """The parameters of both networks and their tensors in the checkpoint; kernels are transposed."""
    layout = registry.tower_of(components.bi_encoder.config).layout(components.bi_encoder.config, "question")
    tower = tensor_names.summary(
        components.initial_params.question_tower, layout.names, f"rag.question_encoder.{layout.prefix}"
    )
    generator = registry.generator_of(components.generator.config).names
    generator = tensor_names.summary(components.initial_params.generator, generator, "rag.generator.")
    for network, names in (("question_tower", tower), ("generator", generator)):
        yield from (Mapped(f"{network}/{here}", *there) for here, there in names.items())


def _settings(components: Components) -> Iterator[Mapped]:
    checkpoint: hub.RagCheckpoint = pretrained.checkpoint(components, components.initial_params)
    for name, value in dataclasses.asdict(checkpoint.reading).items():
        yield Mapped(f"{name} = {value!r}", "config.json")
    for name, value in checkpoint.generator.generation.items():
        yield Mapped(f"{name} = {value!r}", "generation_config.json")
