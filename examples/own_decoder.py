"""A decoder of your own: minimum Bayes risk. Of 16 sampled answers, the one that agrees most with all the others.

python -m examples.own_decoder
"""

from functools import partial

import jax
import jax.numpy as jnp

from examples import toy
from rag_jax.core import losses, training
from rag_jax.core.decode import decoding, rag_token
from rag_jax.core.decode.search import GenerationLimits, take
from rag_jax.core.reading import InputLayout
from rag_jax.types import InferenceBatch


def minimum_bayes_risk(inputs, doc_log_prior, prefix, *, keys, limits, num_samples=16):
    """Samples ranked by their mean token overlap with the others (Eikema & Aziz 2022), inside the program."""
    drawn = rag_token.sample(inputs, doc_log_prior, prefix, keys=keys, num_samples=num_samples, limits=limits)
    same = drawn.tokens[:, :, None] == drawn.tokens[:, None, :]  # [B, C, C, T]
    agreement = jnp.mean(same & drawn.mask[:, :, None], axis=(2, 3), dtype=jnp.float32)
    return take(drawn._replace(score=agreement), jax.lax.top_k(agreement, num_samples)[1])


def main() -> float:
    recipe = training.Recipe(toy.NETWORKS, losses.rag_token_loss, toy.OPTIMIZER, num_docs=4, layout=InputLayout(4))
    params, _ = toy.train(recipe, toy.init(jax.random.key(0)), steps=60)  # not to the end: samples differ

    knowledge = toy.knowledge(jax.random.key(9))
    batch, rows = toy.batch(jax.random.key(9), knowledge, size=32)
    keys = jax.random.split(jax.random.key(2), 32)
    decoder = partial(minimum_bayes_risk, keys=keys, limits=GenerationLimits((toy.START,), toy.EOS, max_length=3))
    run = jax.jit(partial(decoding.answer, toy.NETWORKS, decoder=decoder, num_docs=4, layout=InputLayout(4)))
    found = run(params, knowledge, InferenceBatch(batch.question, batch.prompt), decoding.no_prefix(32)).decoded
    right = found.tokens[:, :, 0] == knowledge.passage_tokens.ids[rows, 1]
    print(f"right: best {float(right[:, 0].mean()):.2f}, a sample {float(right.mean()):.2f}")
    return float(right[:, 0].mean() - right.mean())


if __name__ == "__main__":
    main()
