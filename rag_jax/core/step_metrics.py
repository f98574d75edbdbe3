"""What a training step reports about itself."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rag_jax.core import collapse
from rag_jax.core.collapse import Collapse
from rag_jax.core.refresh import Staleness
from rag_jax.types import Batch


class Metrics(NamedTuple):
    """Metrics of one step, as scalars on the device."""

    loss: Float[Array, ""]  # nats per target token
    grad_norm: Float[Array, ""]  # before clipping
    recall: Float[Array, ""]  # questions with a gold passage among the K, of those that have one; NaN if none has
    input_tokens: Float[Array, ""]  # mean length of a generator input, without padding
    collapse: Collapse
    skipped: Int[Array, ""]  # steps so far whose loss, gradient or update was not finite
    skipped_in_a_row: Int[Array, ""]  # this one included
    staleness: Staleness | None = None  # of the vectors that were searched; None: they are not refreshed
    distillation: Float[Array, ""] | None = None  # nats per question, without its weight; None: there is none


class RetrievalStats(NamedTuple):
    """The parts of a forward pass that metrics are computed from."""

    rows: Int[Array, "B K"]
    doc_log_prior: Float[Array, "B K"]
    posterior: Float[Array, "B K"]  # p(z|x,y); NaN where passages are read together, and have none
    input_lengths: Int[Array, "B N"]  # tokens of the generator's inputs; 0: does not exist
    distillation: Float[Array, " B"] | None = None  # its loss of each question, without its weight


def metrics(
    loss: Float[Array, ""],
    grad_norm: Float[Array, ""],
    stats: RetrievalStats,
    batch: Batch,
    positives: Int[Array, "B G"],
    skipped: Int[Array, ""],
    skipped_in_a_row: Int[Array, ""],
    staleness: Staleness | None = None,
) -> Metrics:
    """The metrics of one step, from its mean loss per question and its forward pass."""
    return Metrics(
        loss=loss / jnp.mean(jnp.sum(batch.target_mask, axis=1).astype(jnp.float32)),
        grad_norm=grad_norm,
        recall=recall(stats.rows, positives),
        input_tokens=jnp.mean(stats.input_lengths.astype(jnp.float32), where=stats.input_lengths > 0),
        collapse=collapse.collapse(stats.rows, stats.doc_log_prior, stats.posterior),
        skipped=skipped,
        skipped_in_a_row=skipped_in_a_row,
        staleness=staleness,
        distillation=None if stats.distillation is None else jnp.mean(stats.distillation),
    )


def recall(rows: Int[Array, "B K"], positives: Int[Array, "B G"]) -> Float[Array, ""]:
    """The fraction of questions with a gold passage among those retrieved, of the questions that have one."""
    has_gold = jnp.any(positives >= 0, axis=1)
    same = (rows[:, :, None] == positives[:, None, :]) & (positives >= 0)[:, None, :]
    hits = jnp.sum(jnp.any(same, axis=(1, 2)).astype(jnp.float32))
    return hits / jnp.sum(has_gold.astype(jnp.float32))
