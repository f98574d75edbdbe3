"""Class-conditional training: the answer is one of some labels, and is told apart from the others, not from all words.

python -m examples.own_labels
"""

import jax
import jax.numpy as jnp

from examples import toy
from rag_jax.core import losses, training
from rag_jax.core.reading import InputLayout

LABELS = toy.VALUES  # one token each


def class_conditional(labels):
    """-log p(y|x), where p(y|x) = sum_z p(z|x) softmax_y(logits of the labels after x and z)."""

    def loss(doc_log_prior, logits, targets, mask):
        is_label = jnp.zeros(logits.shape[3], bool).at[labels].set(True)
        among_labels = jnp.where(is_label, logits[:, :, :1], -jnp.inf)
        return losses.rag_sequence_loss(doc_log_prior, among_labels, targets[:, :1], mask[:, :1])

    return loss


def main() -> float:
    recipe = training.Recipe(toy.NETWORKS, class_conditional(LABELS), toy.OPTIMIZER, num_docs=4, layout=InputLayout(4))
    return toy.train(recipe, toy.init(jax.random.key(0)))[1]


if __name__ == "__main__":
    main()
