"""Saving checkpoints as folders that transformers loads."""

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rag_jax.data.outputs import check_new_folder
from rag_jax.errors import InputError
from rag_jax.hub import configs, registry, tensor_names, tokenizers
from rag_jax.hub.checkpoints import Checkpoint, GeneratorCheckpoint, RagCheckpoint, TowerCheckpoint
from rag_jax.hub.config_json import write_json
from rag_jax.hub.tensors import write_tensors
from rag_jax.models.architecture import GeneratorConfig


class Contents(NamedTuple):
    """The contents of a folder to be written."""

    files: dict[str, Any]  # JSON, by place
    tensors: dict[str, np.ndarray]
    tokenizers: dict[str, tokenizers.Stored | None]  # by place


def save(folder: str | Path, checkpoint: Checkpoint) -> None:
    """Write the folder that transformers' `from_pretrained` loads: safetensors, configs, tokenizers; no pickle.

    A RAG checkpoint becomes `RagTokenForGeneration` or `RagSequenceForGeneration`, a tower `DPRQuestionEncoder` or
    `DPRContextEncoder`, or, if it pools otherwise or encodes both sides, the model of its family in the layout of
    sentence-transformers; a generator becomes the class of its family, such as `BartForConditionalGeneration`.
    transformers has no RAG with a decoder-only generator: such a checkpoint becomes two folders, `question_encoder` and
    `generator`. The folder is written atomically. Raises `InputError` for a folder that is not empty, and for settings
    that transformers cannot express.
    """
    check_new_folder(Path(folder))
    write(Path(folder), checkpoint)


def write(folder: Path, checkpoint: Checkpoint) -> None:
    """`save` for a folder that is the library's own, as inside a workdir: the caller knows that it is new."""
    parts = {place: _contents(part) for place, part in _parts(checkpoint).items()}
    with written_whole(folder) as side:
        for place, contents in parts.items():
            _write(side / place, contents)


def check_layout(tower: TowerCheckpoint) -> None:
    """Raise `InputError` for a tower that `save` refuses; its parameters are not looked at."""
    registry.tower_of(tower.config).files(tower)


def is_in_parts(generator: GeneratorConfig) -> bool:
    """Whether a RAG checkpoint with this generator is saved as two folders."""
    return registry.generator_of(generator).architecture.is_decoder_only


def _parts(checkpoint: Checkpoint) -> dict[str, Checkpoint]:
    """The checkpoints to be written, by place."""
    if isinstance(checkpoint, RagCheckpoint) and is_in_parts(checkpoint.generator.config):
        return {"question_encoder": _question_tower(checkpoint), "generator": checkpoint.generator}
    return {"": checkpoint}


def _question_tower(checkpoint: RagCheckpoint) -> TowerCheckpoint:
    """The tower of a RAG checkpoint, which encodes questions there even if it encodes both."""
    return replace(checkpoint.tower, side="question")


def _write(folder: Path, contents: Contents) -> None:
    folder.mkdir(exist_ok=True)
    write_tensors(folder, contents.tensors)
    for place, values in contents.files.items():
        write_json(folder / place, values)
    for place, stored in contents.tokenizers.items():
        if stored is not None:
            tokenizers.write(folder / place, stored)


@contextlib.contextmanager
def written_whole(folder: Path) -> Iterator[Path]:
    """A folder beside the one to be made, which takes its place when everything in it is written."""
    whole = folder.absolute()
    side = whole.with_name(f".{whole.name}.{os.getpid()}.tmp")
    try:
        side.mkdir(parents=True)  # refuses the folder of another process, which is not ours to delete
        try:
            yield side
            os.replace(side, folder)
        finally:
            shutil.rmtree(side, ignore_errors=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror or error}); choose another place") from None


def _contents(checkpoint: Checkpoint) -> Contents:
    match checkpoint:
        case TowerCheckpoint():
            return _tower(checkpoint)
        case GeneratorCheckpoint():
            return _generator(checkpoint)
        case RagCheckpoint():
            return _rag(checkpoint)


def _tower(checkpoint: TowerCheckpoint) -> Contents:
    family = registry.tower_of(checkpoint.config)
    layout = family.layout(checkpoint.config, checkpoint.side)
    files, stored = family.files(checkpoint), _stored(checkpoint, checkpoint.config.max_positions, family.inputs)
    return Contents(files, tensor_names.to_stored(checkpoint.params, layout.names, layout.prefix), {"": stored})


def _generator(checkpoint: GeneratorCheckpoint) -> Contents:
    family = registry.generator_of(checkpoint.config)
    files = family.files(checkpoint) | {"generation_config.json": dict(checkpoint.generation)}
    stored = _stored(checkpoint, checkpoint.config.max_positions, family.inputs)
    return Contents(files, tensor_names.to_stored(checkpoint.params, family.names), {"": stored})


def _rag(checkpoint: RagCheckpoint) -> Contents:
    tower, generator = _tower(_question_tower(checkpoint)), _generator(checkpoint.generator)
    files = {
        "config.json": configs.describe_rag(
            checkpoint.reading, tower.files["config.json"], generator.files["config.json"], checkpoint.tower.config
        ),
        "generation_config.json": generator.files["generation_config.json"],
    }
    tensors = _below("rag.question_encoder.", tower.tensors) | _below("rag.generator.", generator.tensors)
    kept = {"question_encoder_tokenizer": tower.tokenizers[""], "generator_tokenizer": generator.tokenizers[""]}
    return Contents(files, tensors, kept)


def _stored(
    checkpoint: TowerCheckpoint | GeneratorCheckpoint, positions: int | None, inputs: tuple[str, ...]
) -> tokenizers.Stored | None:
    """The tokenizer; one without settings gets those of its network."""
    if checkpoint.tokenizer is None:
        return None
    longest = {} if positions is None else {"model_max_length": positions}
    settings = checkpoint.tokenizer_settings or {**longest, "model_input_names": inputs}
    return tokenizers.Stored(checkpoint.tokenizer, settings)


def _below(prefix: str, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {prefix + name: tensor for name, tensor in tensors.items()}
