"""Between a workdir and a folder of the Hugging Face ecosystem, in both directions."""

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
from rag_jax.pipeline import kept_tokenizers, pretrained
from rag_jax.pipeline.assembly import compose
from rag_jax.pipeline.checkpoints import Checkpoints
from rag_jax.pipeline.components import Components
from rag_jax.pipeline.trained import load_trained


class Mapped(NamedTuple):
    """What stands for what: a parameter, of all layers together, or a setting."""

    here: str
    there: str
    tensors: int = 0


def convert(source: str, target: Path) -> list[Mapped]:
    """From a workdir to a RAG checkpoint that transformers loads, or from such a checkpoint to a workdir.

    `source` tells which: a workdir, or else a folder or a repository of the hub. A workdir that is made holds the
    parameters as step 0: for answers over an index, and for runs that are to `start_from` it. Its networks' sizes are
    read from `source`, which must stay. Returns what was mapped. Raises `InputError` for a source that is neither, and
    for a target that holds something: nothing is overwritten, and nothing half-written stays.
    """
    check_new_folder(target)
    if (Path(source) / "checkpoints").is_dir():
        components, params = load_trained(Path(source))
        hub.save(target, pretrained.checkpoint(components, params))
        return [*_parameters(components), *_settings(components)]
    return _to_workdir(str(Path(source).absolute()) if Path(source).is_dir() else source, target)


def _to_workdir(source: str, target: Path) -> list[Mapped]:
    components = compose(pretrained.describe(source))
    whole = target.absolute()
    side = whole.with_name(f".{whole.name}.{os.getpid()}.tmp")
    try:
        side.mkdir(parents=True)
        checkpoints = Checkpoints(side)
        checkpoints.save_params(components.initial_params)
        checkpoints.close()
        kept_tokenizers.keep(components, side)
        save_config(components.config, side / "config.json")
        os.replace(side, target)
    except OSError as error:
        raise InputError(f"{target}: cannot be written ({error.strerror}); choose another place") from None
    finally:
        shutil.rmtree(side, ignore_errors=True)
    return [*_parameters(components), *_settings(components)]


def _parameters(components: Components) -> Iterator[Mapped]:
    """The names of both networks' tensors here and there; kernels are transposed on the way."""
    layout = registry.tower_of(components.bi_encoder.config).layout(components.bi_encoder.config, "question")
    tower = tensor_names.summary(
        components.initial_params.question_tower, layout.names, f"rag.question_encoder.{layout.prefix}"
    )
    generator = registry.generator_of(components.generator.config).names
    generator = tensor_names.summary(components.initial_params.generator, generator, "rag.generator.")
    for half, found in (("question_tower", tower), ("generator", generator)):
        yield from (Mapped(f"{half}/{here}", *there) for here, there in found.items())


def _settings(components: Components) -> Iterator[Mapped]:
    found: hub.RagCheckpoint = pretrained.checkpoint(components, components.initial_params)
    for name, value in dataclasses.asdict(found.reading).items():
        yield Mapped(f"{name} = {value!r}", "config.json")
    for name, value in found.generator.generation.items():
        yield Mapped(f"{name} = {value!r}", "generation_config.json")
