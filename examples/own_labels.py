"""Classification: the cross entropy of a label among the labels, not among all tokens, marginalised over the passages.

python -m examples.own_labels
"""

import jax
import jax.numpy as jnp

from examples import toy
from rag_jax.core import losses, training
from rag_jax.core.reading import InputLayout

LABELS = toy.VALUES  # one token each


def label_cross_entropy(labels):
    """-log p(y|x), where p(y|x) = sum_z p(z|x) softmax_y(logits of the labels after x and z).

    Labels, and so all targets, are single tokens.
    """

    def loss(doc_log_prior, logits, targets, mask):
        is_label = jnp.zeros(logits.shape[3], bool).at[labels].set(True)
        among_labels = jnp.where(is_label, logits[:, :, :1], -jnp.inf)
        return losses.rag_sequence_loss(doc_log_prior, among_labels, targets[:, :1], mask[:, :1])

    return loss


def main() -> float:
    recipe = training.Recipe(
        toy.NETWORKS, label_cross_entropy(LABELS), toy.OPTIMIZER, num_docs=4, layout=InputLayout(4)
    )
    return toy.train(recipe, toy.init(jax.random.key(0)))[1]


if __name__ == "__main__":
    main()
