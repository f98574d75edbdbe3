"""The question tower of an index, for commands that search it."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from rag_jax.config.config import Config, Data, Retriever
from rag_jax.errors import InputError, warn_once
from rag_jax.index.encoder import TextEncoder
from rag_jax.index.engines import registry as engines
from rag_jax.index.placement import Precision
from rag_jax.index.store import Store
from rag_jax.models import registry
from rag_jax.pipeline.assembly import load_bi_encoder
from rag_jax.pipeline.components import BiEncoder
from rag_jax.pipeline.trained import load_trained
from rag_jax.rag import RAG

Encode = Callable[[Sequence[str]], Float[np.ndarray, "B D"]]


def check_search(
    engine: engines.EngineName, precision: Precision, tower: str | None, template: str | None, workdir: Path | None
) -> None:
    """Raise `InputError` for options that this engine would ignore."""
    if precision != "float32" and not engines.ENGINES[engine].has_precision:
        raise InputError(f"--engine {engine} searches no vectors on the device; leave --precision {precision} out")
    named = {"--tower": tower, "--question-template": template, "--workdir": workdir}
    for option, value in named.items():
        if value is None:
            continue
        if not engines.ENGINES[engine].needs_vectors:
            raise InputError(f"--engine {engine} searches without vectors; leave {option} out")
        if option != "--workdir" and workdir is not None:
            raise InputError(f"{option} and --workdir are two question towers; leave one of them out")


def query_encoder(store: Store, tower: str | None, template: str | None, workdir: Path | None) -> Encode:
    """A function that encodes questions for the vectors of an opened store.

    Raises `InputError` for a tower that is missing or that makes vectors of another width.

    Args:
        tower: a checkpoint of the question tower; None: the one that the index names, or that of the passages.
        template: what it reads, as "query: {question}"; None: as the checkpoint says.
        workdir: or the question tower that was trained there, with its own template.
    """
    if workdir is not None:
        return RAG(*load_trained(workdir, store.folder, tokens=False)).encode
    return question_encoder(store, tower, template)


def question_encoder(store: Store, source: str | None = None, template: str | None = None) -> Encode:
    """A function that encodes questions for the vectors of an opened store, with a question tower or a shared tower.

    Raises `InputError` for a passage tower that belongs to a separate question tower, and for a tower that the index
    names and that has changed since; the function does for a tower that makes vectors of another width.

    Args:
        source: of the question tower; None: the one that the index names, or that of the passages.
        template: what it reads, as "query: {question}"; None: as the checkpoint says.
    """
    assert store.manifest is not None
    vectors = store.manifest.tower
    name = source or store.manifest.question_source
    found = load_question_tower(name, vectors["norm"], vectors.get("cut_to"), template)
    positions = found.config.max_positions
    encoder = TextEncoder(registry.tower(found.config), found.params, found.tokenizer, positions)
    if source is None and store.manifest.question_fingerprint not in (None, encoder.fingerprint):
        remedy = "build the index again, or name the question tower that belongs to it: --tower"
        raise InputError(f"{name}: another tower than when {store.folder} was built; {remedy}")

    def encode(questions: Sequence[str]) -> Float[np.ndarray, "B D"]:
        """The vectors of questions. Raises `InputError` for one that is too long, and for vectors of another width."""
        rows = found.question_tokenizer(questions)
        for question, row in zip(questions, rows.ids, strict=True):
            if len(row) > positions:
                what = f"question {question[:40]!r} has {len(row)} tokens, {name} reads {positions}"
                raise InputError(f"{what}; shorten it")
        if any(rows.num_truncated):
            warn_once(f"questions of more than {found.input_format.max_length} tokens are cut, as {name} says")
        encoded = encoder.encode(rows.ids)
        if encoded.shape[1] != store.width:
            widths = f"makes vectors of width {encoded.shape[1]}, those of {store.folder} have {store.width}"
            raise InputError(f"{name}: {widths}; name the question tower that belongs to it")
        return encoded

    return encode


def load_question_tower(
    source: str, norm: float | None, width: int | None = None, template: str | None = None
) -> BiEncoder:
    """A tower that reads questions. Raises `InputError` for the passage tower of a pair."""
    tower = Retriever(
        source, vector_norm=norm, vector_width=width, max_question=1, max_passage=1, question_template=template
    )
    found = load_bi_encoder(Config(Data(), tower))
    if found.side == "passage":
        remedy = "name its question tower: --tower, or --question-tower of rag-jax index"
        raise InputError(f"{source}: reads passages only; {remedy}")
    return found
