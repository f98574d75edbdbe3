"""A digest of a model with its index, by content: two that have it in common give the same answers."""

import hashlib
import json
from typing import Any

import jax
import numpy as np

from rag_jax.data.tokenizers import fingerprint as of_tokenizer
from rag_jax.knowledge.store import Store
from rag_jax.run.parts import Parts
from rag_jax.types import RagParams

# What a config says of how answers are computed; where its files are found does not matter.
RETRIEVER = ("max_question", "engine", "precision", "vector_norm")
GENERATOR = ("max_passage", "max_input", "max_target", "passage_template", "question_template", "question_from_tower")


def of_answers(parts: Parts, params: RagParams, asked: object) -> str:
    """A digest of everything that answers depend on: the model, its index, and what is `asked` (plain JSON)."""
    c = parts.config
    told = {
        "asked": asked,
        "model": c.model,
        "start": c.generator.start,
        "long_questions": c.data.long_questions,
        "retriever": {name: getattr(c.retriever, name) for name in RETRIEVER},
        "generator": {name: getattr(c.generator, name) for name in GENERATOR},
        "questions": list(parts.towers.convention),
        "networks": [repr(parts.towers.config), repr(parts.reader.config)],
        "tokenizers": [of_tokenizer(parts.towers.tokenizer), of_tokenizer(parts.vocabulary.tokenizer)],
        "index": _of_store(parts.store),
        "searched": parts.store.manifest and parts.store.manifest.engines.get(c.retriever.engine),
        "parameters": _of_arrays(params),
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def _of_store(store: Store) -> Any:
    """A store on the disk has checksums of its passages and vectors; of one in memory they are made now."""
    found, removed = store.manifest, sorted(store.removed)
    if found is not None and found.rows == store.size:
        parts = [(part, sum_) for segment in found.segments for part, sum_ in segment.parts.items()]
        return [removed, [each for each in parts if each[0].partition("/")[0] in ("passages", "vectors")]]
    digest = hashlib.sha256()
    for passage in store.passages:
        digest.update(json.dumps(passage).encode())
    for block in store.vectors.blocks(65_536):
        digest.update(np.ascontiguousarray(block).tobytes())
    return [removed, digest.hexdigest()]


def _of_arrays(params: RagParams) -> str:
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        array = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()
