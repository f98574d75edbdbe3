"""Content digests of what runs and answers depend on. File locations and names do not count."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from rag_jax.data.tokenizers import fingerprint
from rag_jax.index.store import Store
from rag_jax.pipeline.components import Components
from rag_jax.types import RagParams

PASSAGES = "passages"  # the name of their digest in checkpoints
BLOCK_ROWS = 65_536  # rows of an index hashed at once

# The fields of the config that change how answers are computed.
RETRIEVER = ("num_docs", "max_question", "engine", "precision", "vector_norm")
GENERATOR = ("max_passage", "max_input", "max_target", "passages_per_prompt", "question_from_tower")


def answers_digest(components: Components, params: RagParams, inputs: object) -> str:
    """A digest of everything that answers depend on: the model, its index, and the `inputs` (plain JSON)."""
    config, store = components.config, components.store
    tower, generator = components.bi_encoder, components.generator_tokenizer
    facts = {
        "asked": inputs,
        "model": config.model,
        "start": components.decoder_start_token,
        "long_questions": config.data.long_questions,
        "retriever": {name: getattr(config.retriever, name) for name in RETRIEVER},
        "generator": {name: getattr(config.generator, name) for name in GENERATOR},
        "questions": list(tower.input_format),
        "prompt": [list(each) if isinstance(each, tuple) else each for each in generator[1:]],
        "networks": [repr(tower.config), repr(components.generator.config)],
        "rounding": [config.compute.dtype, config.compute.matmul_precision, _default_precision()],
        "tokenizers": [fingerprint(tower.tokenizer), fingerprint(generator.tokenizer)],
        "index": [digest(passage_bytes(store)), digest(vector_bytes(store))],
        "searched": store.manifest and store.manifest.engines.get(config.retriever.engine),
        "shapes": [f"{leaf.dtype} {leaf.shape}" for leaf in jax.tree.leaves(params)],
        "parameters": digest(parameter_bytes(params)),
    }
    return digest([json_bytes(facts)])


def _default_precision() -> str | None:
    """The precision of matrix products that JAX is set to."""
    return jax.config.jax_default_matmul_precision  # pyright: ignore[reportAttributeAccessIssue]


def digest(pieces: Iterable[bytes]) -> str:
    """The first 16 hex digits of the SHA-256 of the pieces and their lengths, in order."""
    sha = hashlib.sha256()
    for piece in pieces:
        sha.update(len(piece).to_bytes(8, "little") + piece)
    return sha.hexdigest()[:16]


def json_bytes(value: Any) -> bytes:
    """A value as JSON with sorted keys."""
    return json.dumps(value, sort_keys=True).encode()


def parameter_bytes(params: PyTree) -> Iterator[bytes]:
    """The name and the contents of every parameter."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        yield jax.tree_util.keystr(path).encode()
        yield np.asarray(leaf).tobytes()


def passage_bytes(store: Store) -> Iterator[bytes]:
    """The passages in the order of their rows: by checksum where the store is on disk, else their contents."""
    if _is_on_disk(store):
        yield from _checksums(store, "passages")
        yield json_bytes(sorted(store.removed))
    else:
        yield from text_bytes(store)


def text_bytes(store: Store) -> Iterator[bytes]:
    """The contents of the passages in the order of their rows, wherever the store is, and which are removed."""
    for start in range(0, len(store.passages), BLOCK_ROWS):
        yield json_bytes(store.passages.table.slice(start, BLOCK_ROWS).to_pydict())
    yield json_bytes(sorted(store.removed))


def vector_bytes(store: Store) -> Iterator[bytes]:
    """The passage vectors, as `passage_bytes`."""
    if _is_on_disk(store):
        yield from _checksums(store, "vectors")
    else:
        yield str(store.passage_vectors.dtype).encode()
        yield from (np.ascontiguousarray(block).tobytes() for block in store.passage_vectors.blocks(BLOCK_ROWS))


def _is_on_disk(store: Store) -> bool:
    """Whether all rows are those of a version on disk, none added in memory."""
    return store.manifest is not None and store.manifest.rows == store.size


def _checksums(store: Store, kind: str) -> Iterator[bytes]:
    """The checksums of a store's segments, in the order of its rows."""
    assert store.manifest is not None
    for segment in store.manifest.segments:
        yield segment.parts[f"{kind}/{segment.name}"].encode()
