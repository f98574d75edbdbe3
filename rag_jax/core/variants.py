"""The paper's two models, RAG-Token and RAG-Sequence: everything that differs between them."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal, NamedTuple

from jaxtyping import Array, Float, Key

from rag_jax.core import likelihood, losses
from rag_jax.core.decode import decoding, rag_sequence, sampling
from rag_jax.core.decode.decoding import Decoded, Marginalise
from rag_jax.core.decode.search import GenerationLimits, LogitsProcessor
from rag_jax.core.decode.tree_cache import EncodedInputs
from rag_jax.core.likelihood import Likelihood
from rag_jax.types import Tokens

Model = Literal["token", "sequence"]
Method = Literal["thorough", "fast"]  # of searching RAG-Sequence; RAG-Token is always searched whole


class Variant(NamedTuple):
    """One of the models."""

    likelihood: Likelihood
    objective: Callable[..., Array]  # of training: an `Objective` that takes `label_smoothing` too
    marginalise: Marginalise  # of given answers
    decoders: Mapping[str, Callable[..., Decoded]]  # by method, around a search: (reader, prior, given, *, search, …)
    sample: Callable[..., Decoded]  # (reader, prior, given, *, keys, num_samples, limits, rules)
    has_score: bool  # whether answers are ranked by the search's score; if not, by log p(y|x)


def rag_token_sample(
    inputs: EncodedInputs,
    doc_log_prior: Float[Array, "B K"],
    prefix: Tokens,
    *,
    keys: Key[Array, " B"],
    num_samples: int,
    limits: GenerationLimits,
    logits_processors: tuple[LogitsProcessor, ...] = (),
) -> Decoded:
    """RAG-Token, sampled: each token from the mixture over passages."""
    search = partial(sampling.sample, keys=keys, num_samples=num_samples, logits_processors=logits_processors)
    return decoding.rag_token(inputs, doc_log_prior, prefix, search=search, limits=limits, n_best=num_samples)


VARIANTS: dict[Model, Variant] = {
    "token": Variant(
        likelihood.rag_token,
        losses.rag_token_loss,
        decoding.marginalise_rag_token,
        {"thorough": decoding.rag_token},
        rag_token_sample,
        has_score=True,
    ),
    "sequence": Variant(
        likelihood.rag_sequence,
        losses.rag_sequence_loss,
        decoding.marginalise_rag_sequence,
        {"thorough": rag_sequence.rag_sequence_thorough, "fast": rag_sequence.rag_sequence_fast},
        rag_sequence.rag_sequence_sample,
        has_score=False,
    ),
}
