"""The models: everything that differs between RAG-Token, RAG-Sequence and Fusion-in-Decoder.

Fusion-in-Decoder is RAG-Token over one passage, into which those retrieved are fused (`core.reading.fuse`).
"""

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

from jaxtyping import Array

from rag_jax.core import likelihood, losses
from rag_jax.core.decode import rag_sequence, rag_token
from rag_jax.core.decode.decoded import Decoded, Marginalise
from rag_jax.core.likelihood import Likelihood

Model = Literal["token", "sequence", "fid"]
Method = Literal["thorough", "fast"]  # of decoding RAG-Sequence; the others have one exact search, called thorough


class Variant(NamedTuple):
    """One of the models."""

    likelihood: Likelihood  # for scoring
    objective: Callable[..., Array]  # for training: an `Objective` with a `label_smoothing` argument
    marginalise: Marginalise  # of given answers
    decoders: Mapping[str, Callable[..., Decoded]]  # by method: (inputs, prior, prefix, *, search, limits, n_best)
    sample: Callable[..., Decoded]  # (inputs, prior, prefix, *, keys, num_samples, limits, logits_processors)
    has_score: bool  # whether answers are ranked by the search's score; otherwise by log p(y|x)
    fuses: bool = False  # whether one passage is made of all: their prior is ignored, and they have no posterior


TOKEN = Variant(
    likelihood.rag_token,
    losses.rag_token_loss,
    rag_token.marginalise,
    {"thorough": rag_token.decode},
    rag_token.sample,
    has_score=True,
)
VARIANTS: dict[Model, Variant] = {
    "token": TOKEN,
    "sequence": Variant(
        likelihood.rag_sequence,
        losses.rag_sequence_loss,
        rag_sequence.marginalise,
        {"thorough": rag_sequence.thorough, "fast": rag_sequence.fast},
        rag_sequence.sample,
        has_score=False,
    ),
    "fid": TOKEN._replace(fuses=True),
}
