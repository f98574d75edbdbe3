"""Whether retrieval still tells questions apart.

The paper saw its retriever collapse on story generation: it "would learn to retrieve the same documents regardless of
the input" (Lewis et al. 2020, appendix D), and the generator then learnt to do without them. Three figures fall when
that happens: how many passages of a batch are different, the entropy of the prior, and what the answer tells about the
passage that it comes from.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class Collapse(NamedTuple):
    """Of one batch, as scalars."""

    distinct: Float[Array, ""]  # different passages among all that were retrieved: 1, none is shared by two questions
    most_frequent: Float[Array, ""]  # the share of questions that got the passage which most of them got
    prior_entropy: Float[Array, ""]  # nats, mean over questions; zero: one passage takes all, log K: all alike
    kl: Float[Array, ""]  # nats, KL(p(z|x,y) || p(z|x)), mean: what the answer tells about its passage


def collapse(ids: Int[Array, "B K"], doc_log_prior: Float[Array, "B K"], posterior: Float[Array, "B K"]) -> Collapse:
    """The figures of a batch; passages with the id -1 are none, and count nowhere."""
    found = ids.reshape(-1)
    exists = found >= 0
    same = (found[:, None] == found[None, :]) & exists[:, None] & exists[None, :]
    times = jnp.sum(same, axis=1).astype(jnp.float32)
    got = jnp.any(same.reshape(*same.shape[:1], *ids.shape), axis=2)  # [BK, B]: which questions got a passage
    different = jnp.sum(jnp.where(exists, 1 / jnp.maximum(times, 1), 0.0))
    prior = jnp.exp(doc_log_prior)
    log_prior = jnp.where(jnp.isneginf(doc_log_prior), 0.0, doc_log_prior)
    gain = jnp.log(jnp.where(posterior > 0, posterior, 1.0)) - log_prior
    return Collapse(
        distinct=different / jnp.maximum(jnp.sum(exists).astype(jnp.float32), 1),
        most_frequent=jnp.max(jnp.sum(got, axis=1).astype(jnp.float32), initial=0.0) / ids.shape[0],
        prior_entropy=-jnp.mean(jnp.sum(prior * log_prior, axis=1)),
        kl=jnp.mean(jnp.sum(posterior * gain, axis=1)),
    )
