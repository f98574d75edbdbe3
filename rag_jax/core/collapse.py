"""Metrics of retrieval collapse.

On story generation the paper's retriever collapsed: it "would learn to retrieve the same documents regardless of the
input" (Lewis et al. 2020, appendix H), and the generator learnt to ignore them. Three metrics fall when that happens:
the number of distinct passages in a batch, the entropy of the prior, and the divergence of the posterior from it.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class Collapse(NamedTuple):
    """Metrics of one batch, as scalars."""

    distinct: Float[Array, ""]  # fraction of the retrieved passages that are distinct; 1: no two questions share one
    most_frequent: Float[Array, ""]  # fraction of questions that retrieved the most frequent passage
    prior_entropy: Float[Array, ""]  # nats, mean over questions; 0: one passage has all the mass, log K: uniform
    kl: Float[Array, ""]  # nats, KL(p(z|x,y) || p(z|x)), mean over questions; NaN without a posterior


def collapse(ids: Int[Array, "B K"], doc_log_prior: Float[Array, "B K"], posterior: Float[Array, "B K"]) -> Collapse:
    """The metrics of a batch. An id of -1 is a missing passage, which is not counted."""
    flat = ids.reshape(-1)
    valid = flat >= 0
    same = (flat[:, None] == flat[None, :]) & valid[:, None] & valid[None, :]
    occurrences = jnp.sum(same, axis=1).astype(jnp.float32)
    retrieved_by = jnp.any(same.reshape(*same.shape[:1], *ids.shape), axis=2)  # [BK, B]
    distinct = jnp.sum(jnp.where(valid, 1 / jnp.maximum(occurrences, 1), 0.0))
    prior = jnp.exp(doc_log_prior)
    log_prior = jnp.where(jnp.isneginf(doc_log_prior), 0.0, doc_log_prior)
    log_ratio = jnp.log(jnp.where(posterior > 0, posterior, 1.0)) - log_prior
    return Collapse(
        distinct=distinct / jnp.maximum(jnp.sum(valid).astype(jnp.float32), 1),
        most_frequent=jnp.max(jnp.sum(retrieved_by, axis=1).astype(jnp.float32), initial=0.0) / ids.shape[0],
        prior_entropy=-jnp.mean(jnp.sum(prior * log_prior, axis=1)),
        kl=jnp.mean(jnp.sum(posterior * log_ratio, axis=1)),
    )
