"""From retrieved passages to what the generator reads: `<s> title / text // question </s>`.

Passages and questions are tokenised once, beforehand; the pair is assembled by integer gathers, inside the compiled
program. The separator belongs to the question's part, so that cutting a passage never loses it.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rag_jax.core.dropout import split
from rag_jax.types import DropoutKey, Generator, PackedInputs, Params, Tokens


def assemble(passages: Tokens, prompts: Tokens, max_length: int) -> Tokens:
    """Join passages `[B, K, P]` and prompts `[B, L]` to generator inputs `[B, K, S]`, S = min(P + L, max_length).

    Where the pair is too long the passage is cut at its end, never the question. Raises `ValueError` where the
    prompts alone are longer than that.
    """
    if prompts.ids.shape[1] > max_length:
        raise ValueError(f"prompts of {prompts.ids.shape[1]} tokens do not fit into inputs of {max_length}")
    size = min(passages.ids.shape[2] + prompts.ids.shape[1], max_length)
    prompt_length = prompts.lengths[:, None]
    head = jnp.minimum(passages.lengths, size - prompt_length)
    position = jnp.arange(size, dtype=head.dtype)[None, None, :]
    in_prompt = position - head[:, :, None]
    from_passage = _take(passages.ids.astype(jnp.int32), jnp.broadcast_to(position, (*head.shape, size)))
    prompt = jnp.broadcast_to(prompts.ids[:, None, :], (*head.shape, prompts.ids.shape[1]))
    return Tokens(jnp.where(in_prompt < 0, from_passage, _take(prompt, in_prompt)), head + prompt_length)


def read(
    generator: Generator,
    params: Params,
    inputs: Tokens | PackedInputs,
    decoder_inputs: Int[Array, "B T"],
    key: DropoutKey = None,
) -> Float[Array, "B K T V"]:
    """The generator's logits for one target under each of K inputs `[B, K, S]` or packed rows (teacher forcing)."""
    given = inputs if isinstance(inputs, PackedInputs) else rows(inputs)
    count = given.inputs.lengths.shape[0] if isinstance(given, PackedInputs) else given.lengths.shape[0]
    batch = decoder_inputs.shape[0]
    encode_key, decode_key = split(key)
    memory = generator.encode(params, given, encode_key)
    states, _ = generator.decode(params, jnp.repeat(decoder_inputs, count // batch, axis=0), memory, key=decode_key)
    logits = generator.logits(params, states)
    return logits.reshape(batch, count // batch, *logits.shape[1:])


def rows(inputs: Tokens) -> Tokens:
    """`[B, K, S]` as the `[B * K, S]` rows that the generator reads."""
    return Tokens(inputs.ids.reshape(-1, inputs.ids.shape[-1]), inputs.lengths.reshape(-1))


def _take(ids: Int[Array, "B K P"], position: Int[Array, "B K S"]) -> Int[Array, "B K S"]:
    """Tokens by position; positions outside repeat the border, where the caller does not look."""
    return jnp.take_along_axis(ids, jnp.clip(position, 0, ids.shape[2] - 1), axis=2)
