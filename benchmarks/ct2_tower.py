"""CTranslate2's BERT as an encoder of passages: its states, pooled by numpy."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
from jaxtyping import Float

from benchmarks.ct2_models import Dtype, convert_bert, states
from rag_jax.hub import bert, tensor_names
from rag_jax.models.bert import BertConfig
from rag_jax.types import Params


def ct2_tower(
    params: Params, config: BertConfig, threads: int, dtype: Dtype
) -> Callable[[list[list[int]]], Float[np.ndarray, "rows D"]]:
    """BERT with the pooling and the norm of `config`: a batch of token ids, padded to its longest."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "tower"
        stored = tensor_names.to_stored(params, bert.NAMES)
        convert_bert(stored, config.heads, config.layer_norm_eps, place, dtype)
        how: Any = {"compute_type": dtype, "inter_threads": 1, "intra_threads": threads}
        tower = ctranslate2.Encoder(str(place), **how)

    def embed(rows: list[list[int]]) -> Float[np.ndarray, "rows D"]:
        lengths = np.asarray([len(row) for row in rows], np.int32)
        mask = np.arange(lengths.max())[None, :] < lengths[:, None]
        ids = np.zeros(mask.shape, np.int32)
        ids[mask] = np.concatenate(rows)
        found = states(tower, ids, lengths)
        if config.pooling == "cls":
            pooled = found[:, 0]
        else:
            pooled = np.einsum("rsd,rs->rd", found, mask.astype(np.float32)) / lengths[:, None].astype(np.float32)
        if config.vector_norm is not None:
            pooled = config.vector_norm * pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
        return pooled

    return embed
