"""A generator of your own: four functions. Here one that attends from each answer token to the tokens that were read.

python -m examples.own_generator

A family with checkpoints, sizes in the config and partition rules is two files: see docs/extending.md.
"""

from functools import partial

import jax
import jax.numpy as jnp

from examples import toy
from rag_jax.core import losses, training
from rag_jax.core.decode import beam, decoding, rag_token
from rag_jax.core.decode.search import GenerationLimits
from rag_jax.core.reading import InputLayout
from rag_jax.types import Generator, InferenceBatch, PackedInputs


def encode(params, inputs, key=None):
    """Read once, whatever is decoded later: embeddings [R, S, width] and their mask [R, S]."""
    rows = inputs.inputs if isinstance(inputs, PackedInputs) else inputs
    return params["embedding"][rows.ids], rows.mask


def decode(params, decoder_inputs, encoded, cache=None, positions=None, key=None):
    """States [R, T, width] of the answer's tokens. The last token is all that it looks back to: no cache."""
    read, mask = encoded
    queries = params["embedding"][decoder_inputs] @ params["hidden"]
    scores = jnp.where(mask[:, None, :], jnp.einsum("RTD,RSD->RTS", queries, read), -jnp.inf)
    return queries + jnp.einsum("RTS,RSD->RTD", jax.nn.softmax(scores, axis=2), read), ()


def logits(params, states):
    return states @ params["output"]


def main() -> float:
    networks = toy.NETWORKS._replace(generator=Generator(encode, decode, logits, lambda rows, slots: ()))
    recipe = training.Recipe(networks, losses.rag_token_loss, toy.OPTIMIZER, num_docs=4, layout=InputLayout(4))
    params, loss = toy.train(recipe, toy.init(jax.random.key(0)))

    limits = GenerationLimits((toy.START,), toy.EOS, max_length=3)
    decoder = partial(rag_token.decode, search=partial(beam.search, num_beams=2), limits=limits)
    knowledge = toy.knowledge(jax.random.key(9))
    batch, rows = toy.batch(jax.random.key(9), knowledge, size=4)
    run = jax.jit(partial(decoding.answer, networks, decoder=decoder, num_docs=4, layout=InputLayout(4)))
    found = run(params, knowledge, InferenceBatch(batch.question, batch.prompt), decoding.no_prefix(4))
    gold = knowledge.passage_tokens.ids[rows[:, 0], 1]
    print("answers", found.decoded.tokens[:, 0, 0].tolist(), "gold", gold.tolist())
    return loss


if __name__ == "__main__":
    main()
