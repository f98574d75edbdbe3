"""A question tower of your own: any function of parameters and tokens. Here attention pooling over the embeddings.

python -m examples.own_tower
"""

import jax
import jax.numpy as jnp

from examples import toy
from rag_jax.core import losses, training
from rag_jax.core.reading import InputLayout


def tower(params, tokens, key=None):
    """Tokens [B, Q] -> q(x) [B, D]. `key` is for dropout; it is None where answers are computed."""
    embedded = params["embedding"][tokens.ids]
    weights = jnp.where(tokens.mask, embedded @ params["query"], -jnp.inf)
    return jnp.einsum("BQ,BQD->BD", jax.nn.softmax(weights, axis=1), embedded)


def main() -> float:
    networks = toy.NETWORKS._replace(tower=tower)
    params = toy.init(jax.random.key(0))
    own = params.question_tower | {"query": jnp.zeros(toy.WIDTH)}
    recipe = training.Recipe(networks, losses.rag_token_loss, toy.OPTIMIZER, num_docs=4, layout=InputLayout(4))
    return toy.train(recipe, params._replace(question_tower=own))[1]


if __name__ == "__main__":
    main()
