"""Decode RAG-Token (Lewis et al. 2020, section 2.5): one language model, the mixture of the passages at every token.

Any search decodes it, with one set of hypotheses per question.
"""

from functools import partial

import jax
from jaxtyping import Array, Bool, Float, Key

from rag_jax.core import likelihood
from rag_jax.core.decode import sampling
from rag_jax.core.decode.decoded import Decoded, decoded, existing, per_answer
from rag_jax.core.decode.language_model import mixture
from rag_jax.core.decode.search import GenerationLimits, LogitsProcessor, Search
from rag_jax.core.decode.tree_cache import EncodedInputs
from rag_jax.types import Tokens


def decode(
    inputs: EncodedInputs,
    doc_log_prior: Float[Array, "B K"],
    prefix: Tokens,
    *,
    search: Search,
    limits: GenerationLimits,
    n_best: int = 1,
) -> Decoded:
    """Search the mixture `sum_z p(z|x) p(y_t | x, z, y_<t)`; the answers keep the search's order and scores."""
    hypotheses = search(mixture(inputs, doc_log_prior, prefix, limits), limits)
    hypotheses = jax.tree.map(lambda each: each[:, :n_best], hypotheses)
    answers = marginalise(doc_log_prior, hypotheses.tokens, hypotheses.exists, hypotheses.doc_log_probs)
    return answers._replace(score=hypotheses.scores)


def sample(
    inputs: EncodedInputs,
    doc_log_prior: Float[Array, "B K"],
    prefix: Tokens,
    *,
    keys: Key[Array, " B"],
    num_samples: int,
    limits: GenerationLimits,
    logits_processors: tuple[LogitsProcessor, ...] = (),
) -> Decoded:
    """Sample each token from the mixture over passages."""
    search = partial(sampling.sample, keys=keys, num_samples=num_samples, logits_processors=logits_processors)
    return decode(inputs, doc_log_prior, prefix, search=search, limits=limits, n_best=num_samples)


def marginalise(
    doc_log_prior: Float[Array, "B K"],
    answers: Tokens,
    exists: Bool[Array, "B C"],
    target_log_probs: Float[Array, "B C K T"],
) -> Decoded:
    """Likelihood and posteriors of answers under RAG-Token, in their order."""
    mask = existing(answers, exists)
    log_prob = per_answer(likelihood.rag_token)(doc_log_prior, target_log_probs, mask)
    token_doc_posterior = per_answer(likelihood.token_doc_posterior)(doc_log_prior, target_log_probs, mask)
    return decoded(answers, exists, log_prob, token_doc_posterior)
