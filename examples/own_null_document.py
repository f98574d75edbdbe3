"""A null document: the last of the K passages is empty, and its score is learned with the question tower.

python -m examples.own_null_document
"""

import jax
import jax.numpy as jnp

from examples import toy
from rag_jax.core import losses, null_document, training
from rag_jax.core.reading import InputLayout
from rag_jax.core.retrieval import LOCAL

EMPTY = (toy.ASK,)  # the tokens of the empty passage


def main() -> float:
    networks = toy.NETWORKS._replace(tower=null_document.tower(toy.tower, null_document.bias_score))
    recipe = training.Recipe(
        networks,
        losses.rag_token_loss,
        toy.OPTIMIZER,
        num_docs=4,
        layout=InputLayout(4),
        lookup=null_document.index(LOCAL, EMPTY),
    )
    start = toy.init(jax.random.key(0))
    start = start._replace(question_tower={"tower": start.question_tower, "null": jnp.zeros(())})
    params, loss = toy.train(recipe, start)
    print(f"the bias of the null document: {float(params.question_tower['null']):.2f}")
    return loss


if __name__ == "__main__":
    main()
