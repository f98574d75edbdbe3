"""How a family's checkpoints are stored: what `hub/NAME.py` says of the networks in `models/NAME.py`."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rag_jax.data.tower_inputs import TITLE_AND_TEXT
from rag_jax.hub.checkpoints import GeneratorCheckpoint, Side, TowerCheckpoint
from rag_jax.hub.config_json import Described
from rag_jax.hub.tensor_names import Names
from rag_jax.hub.tensors import Tensors
from rag_jax.models.architecture import Architecture, GeneratorConfig, TowerConfig
from rag_jax.types import Generator, Tower


class Layout(NamedTuple):
    """What the tensors of a tower are called, and below which prefix they are."""

    prefix: str
    names: Names
    side: Side | None = None  # which half of a bi-encoder is stored so; None: no such half


class TowerFormat(NamedTuple):
    """A family of towers. Functions raise `InputError` for what the network here does not do."""

    architecture: Architecture[Tower]
    model_types: tuple[str, ...]  # config.json's
    read_config: Callable[[Described, Path], TowerConfig]  # from config.json and the folder that it is in
    layouts: tuple[Layout, ...]  # that it is read in: the first whose token table is there
    layout: Callable[[Any, Side | None], Layout]  # that a tower of these sizes is written in
    files: Callable[[TowerCheckpoint], dict[str, Any]]  # config.json, and what else is written, by place
    # (tensors, sizes, prefix, where): the tensors as `layouts` say, without those that no network here reads
    tidy: Callable[[Tensors, Any, str, str], Tensors] = lambda tensors, config, prefix, where: tensors
    inputs: tuple[str, ...] = ("input_ids", "attention_mask")  # transformers' names of what its tokenizer makes
    passage: Callable[[Described], str] = lambda config: TITLE_AND_TEXT  # the usual template of passages
    published: Mapping[str, TowerConfig] = {}  # sizes of checkpoints on the hub, for planning without them


class GeneratorFormat(NamedTuple):
    """A family of generators. Functions raise `InputError` for what the network here does not do."""

    architecture: Architecture[Generator]
    model_types: tuple[str, ...]  # config.json's
    read_config: Callable[[Described], GeneratorConfig]
    names: Names
    files: Callable[[GeneratorCheckpoint], dict[str, Any]]  # config.json, by place
    # (tensors, sizes, prefix, where): the tensors as `names` says, each once, where checkpoints have other forms too
    tidy: Callable[[Tensors, Any, str, str], Tensors] = lambda tensors, config, prefix, where: tensors
    inputs: tuple[str, ...] = ("input_ids", "attention_mask")
    published: Mapping[str, GeneratorConfig] = {}


Format = TowerFormat | GeneratorFormat
