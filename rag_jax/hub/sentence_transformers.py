"""A tower's folder in the layout of sentence-transformers, which transformers loads as well."""

from collections.abc import Mapping
from typing import Any

from rag_jax.data.tower_inputs import PLAIN
from rag_jax.hub.checkpoints import TowerCheckpoint
from rag_jax.hub.input_format import MAX_LENGTH, PROMPTS, describe_input_format, describe_prompts
from rag_jax.hub.pooling import PooledTowerConfig, describe_modules, describe_pooling


def files(checkpoint: TowerCheckpoint, config: PooledTowerConfig, network: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON files, by path; `network` is the config.json of transformers for this tower.

    config.json also holds what the files of sentence-transformers cannot express, so that the tower is loaded here as
    it was saved.
    """
    fed = checkpoint.input_format
    side = {} if checkpoint.side is None else {"side": checkpoint.side}
    own = {**describe_pooling(config), **describe_input_format(fed, PLAIN), MAX_LENGTH: fed.max_length, **side}
    prompts = describe_prompts(fed, config.vector_norm, config.max_positions)
    if config.truncated_width is not None:
        prompts[PROMPTS]["truncate_dim"] = config.truncated_width
    return {"config.json": {**network, **own}, **describe_modules(config), **prompts}
