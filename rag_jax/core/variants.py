"""The paper's two models, RAG-Token and RAG-Sequence: everything that differs between them."""

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

from jaxtyping import Array

from rag_jax.core import likelihood, losses
from rag_jax.core.decode import rag_sequence, rag_token
from rag_jax.core.decode.decoded import Decoded, Marginalise
from rag_jax.core.likelihood import Likelihood

Model = Literal["token", "sequence"]
Method = Literal["thorough", "fast"]  # of decoding RAG-Sequence; RAG-Token has one exact search, called thorough


class Variant(NamedTuple):
    """One of the two models."""

    likelihood: Likelihood  # for scoring
    objective: Callable[..., Array]  # for training: an `Objective` with a `label_smoothing` argument
    marginalise: Marginalise  # of given answers
    decoders: Mapping[str, Callable[..., Decoded]]  # by method: (inputs, prior, prefix, *, search, limits, n_best)
    sample: Callable[..., Decoded]  # (inputs, prior, prefix, *, keys, num_samples, limits, logits_processors)
    has_score: bool  # whether answers are ranked by the search's score; otherwise by log p(y|x)


VARIANTS: dict[Model, Variant] = {
    "token": Variant(
        likelihood.rag_token,
        losses.rag_token_loss,
        rag_token.marginalise,
        {"thorough": rag_token.decode},
        rag_token.sample,
        has_score=True,
    ),
    "sequence": Variant(
        likelihood.rag_sequence,
        losses.rag_sequence_loss,
        rag_sequence.marginalise,
        {"thorough": rag_sequence.thorough, "fast": rag_sequence.fast},
        rag_sequence.sample,
        has_score=False,
    ),
}
