"""An optimizer of your own: Lion for the question tower, SGD with momentum for the generator, one clip for both.

python -m examples.own_optimizer
"""

import jax
import optax

from examples import toy
from rag_jax.core import losses, optimizers, training
from rag_jax.core.reading import InputLayout


def main() -> float:
    schedule = optax.cosine_decay_schedule(0.5, decay_steps=150)
    optimizer = optimizers.rag(optax.lion(0.01), optax.sgd(schedule, momentum=0.9), clip=1.0)
    recipe = training.Recipe(toy.NETWORKS, losses.rag_token_loss, optimizer, num_docs=4, layout=InputLayout(4))
    return toy.train(recipe, toy.init(jax.random.key(0)))[1]


if __name__ == "__main__":
    main()
