"""The description of a family's checkpoints that `hub/NAME.py` provides for the networks in `models/NAME.py`."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rag_jax.data.tower_inputs import TITLE_AND_TEXT
from rag_jax.hub.checkpoints import GeneratorCheckpoint, Side, TowerCheckpoint
from rag_jax.hub.config_json import ConfigJson
from rag_jax.hub.tensor_names import TensorNames
from rag_jax.hub.tensors import Tensors
from rag_jax.models.architecture import Architecture, GeneratorConfig, TowerConfig
from rag_jax.types import Generator, Tower


class Layout(NamedTuple):
    """The names of a tower's tensors, and their prefix."""

    prefix: str
    names: TensorNames
    side: Side | None = None  # the half of a bi-encoder that is stored so; None: not specified
    architecture: str = ""  # the class of transformers that is saved so


class TowerFormat(NamedTuple):
    """A family of towers. Functions raise `InputError` for what the network here does not implement."""

    architecture: Architecture[Tower]
    model_types: tuple[str, ...]  # config.json's
    read_config: Callable[[ConfigJson, Path], TowerConfig]  # from config.json and the folder that it is in
    layouts: tuple[Layout, ...]  # for loading: the first whose token table exists
    layout: Callable[[Any, Side | None], Layout]  # for saving
    files: Callable[[TowerCheckpoint], dict[str, Any]]  # config.json and other JSON files, by path
    # (tensors, sizes, prefix, source): the tensors named as in `layouts`, without unused ones
    normalize: Callable[[Tensors, Any, str, str], Tensors] = lambda tensors, config, prefix, source: tensors
    inputs: tuple[str, ...] = ("input_ids", "attention_mask")  # of the network, as transformers names them
    passage: Callable[[ConfigJson], str] = lambda config: TITLE_AND_TEXT  # the default passage template
    published: Mapping[str, TowerConfig] = {}  # sizes of checkpoints on the hub, for planning without them


class GeneratorFormat(NamedTuple):
    """A family of generators. Functions raise `InputError` for what the network here does not implement."""

    architecture: Architecture[Generator]
    model_types: tuple[str, ...]  # config.json's
    read_config: Callable[[ConfigJson], GeneratorConfig]
    names: TensorNames
    files: Callable[[GeneratorCheckpoint], dict[str, Any]]  # JSON files, by path
    # (tensors, sizes, prefix, source): the tensors named as in `names`, tied ones once
    normalize: Callable[[Tensors, Any, str, str], Tensors] = lambda tensors, config, prefix, source: tensors
    inputs: tuple[str, ...] = ("input_ids", "attention_mask")
    published: Mapping[str, GeneratorConfig] = {}
    generation: Mapping[str, Any] = {}  # settings of decoding that config.json may leave out


Format = TowerFormat | GeneratorFormat
