"""The question tower of an index, for commands that search it."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from rag_jax.commands.index import question_encoder
from rag_jax.config.command_line import check_names
from rag_jax.errors import InputError
from rag_jax.index.store import Store
from rag_jax.rag import RAG


def query_encoder(
    store: Store, tower: str | None, template: str | None, workdir: Path | None
) -> Callable[[Sequence[str]], Float[np.ndarray, "B D"]]:
    """A function that encodes questions for the vectors of an opened store.

    Raises `InputError` for a tower that is missing or that makes vectors of another width.

    Args:
        tower: a checkpoint of the question tower; None: the one that the index names, or that of the passages.
        template: what it reads, as "query: {question}"; None: as the checkpoint says.
        workdir: or the question tower that was trained there, with its own template.
    """
    if workdir is not None:
        for option, value in (("--tower", tower), ("--question-template", template)):
            if value is not None:
                raise InputError(f"{option} and --workdir are two question towers; leave one of them out")
        return RAG.from_workdir(workdir, store.folder).encode
    check_names(tower=tower)
    return question_encoder(store, tower, template)
