"""An objective of your own: both of the paper's likelihoods at once, and a bonus for a retriever that stays undecided.

python -m examples.own_objective
"""

import jax
import jax.numpy as jnp

from examples import toy
from rag_jax.core import losses, training
from rag_jax.core.reading import InputLayout


def both(doc_log_prior, logits, targets, mask):
    """log p(z|x) [B, K], logits [B, K, T, V], targets [B, T], mask [B, T] -> loss [B], nats per question."""
    token = losses.rag_token_loss(doc_log_prior, logits, targets, mask)
    sequence = losses.rag_sequence_loss(doc_log_prior, logits, targets, mask)
    entropy = -jnp.sum(jnp.exp(doc_log_prior) * doc_log_prior, axis=1)
    return (token + sequence) / 2 - 0.01 * entropy


def main() -> float:
    recipe = training.Recipe(toy.NETWORKS, both, toy.OPTIMIZER, num_docs=4, layout=InputLayout(4))
    return toy.train(recipe, toy.init(jax.random.key(0)))[1]


if __name__ == "__main__":
    main()
