"""From retrieved passages to generator inputs `header title / text // question </s>`, and to logits.

Passages and questions are tokenised beforehand; each pair is joined by integer gathers inside the compiled program. The
separator is part of the question's prompt, so that truncating a passage never removes it. A header, such as a system
prompt, is the same for all inputs.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rag_jax.core.dropout import split
from rag_jax.types import DropoutKey, Generator, PackedInputs, Params, Tokens


def assemble(passages: Tokens, prompts: Tokens, max_length: int, header: tuple[int, ...] = ()) -> Tokens:
    """Join header, passages `[B, K, P]` and prompts `[B, L]` to generator inputs `[B, K, S]`, S at most `max_length`.

    Where the whole is too long the passage is truncated, never the header or the question. Raises `ValueError` where
    these alone are longer than `max_length`.
    """
    fixed = len(header) + prompts.ids.shape[1]
    if fixed > max_length:
        raise ValueError(f"a header and prompts of {fixed} tokens do not fit into inputs of {max_length}")
    size = min(passages.ids.shape[2] + fixed, max_length) - len(header)
    prompt_length = prompts.lengths[:, None]
    passage_length = jnp.minimum(passages.lengths, size - prompt_length)
    position = jnp.arange(size, dtype=passage_length.dtype)[None, None, :]
    in_prompt = position - passage_length[:, :, None]
    shape = (*passage_length.shape, size)
    from_passage = _take(passages.ids.astype(jnp.int32), jnp.broadcast_to(position, shape))
    prompt = jnp.broadcast_to(prompts.ids[:, None, :], (*shape[:2], prompts.ids.shape[1]))
    ids = jnp.where(in_prompt < 0, from_passage, _take(prompt, in_prompt))
    start = jnp.broadcast_to(jnp.asarray(header, jnp.int32)[None, None, :], (*shape[:2], len(header)))
    return Tokens(jnp.concatenate([start, ids], axis=2), len(header) + passage_length + prompt_length)


def read(
    generator: Generator,
    params: Params,
    inputs: Tokens | PackedInputs,
    decoder_inputs: Int[Array, "B T"],
    key: DropoutKey = None,
    fused_by: Float[Array, "B K"] | None = None,
) -> Float[Array, "B n T V"]:
    """The generator's logits for one target under each of K inputs `[B, K, S]` or packed rows (teacher forcing).

    n is K, or 1 where `fused_by`, the prior over the passages, is given: the target is then read under all together.
    """
    inputs = inputs if isinstance(inputs, PackedInputs) else rows(inputs)
    num_rows = inputs.inputs.lengths.shape[0] if isinstance(inputs, PackedInputs) else inputs.lengths.shape[0]
    batch = decoder_inputs.shape[0]
    num_docs = num_rows // batch
    encode_key, decode_key = split(key)
    encoded = generator.encode(params, inputs, encode_key)
    if fused_by is not None:
        encoded, num_docs = fuse(generator, encoded, fused_by), 1
    states, _ = generator.decode(params, jnp.repeat(decoder_inputs, num_docs, axis=0), encoded, key=decode_key)
    logits = generator.logits(params, states)
    return logits.reshape(batch, num_docs, *logits.shape[1:])


def fuse(generator: Generator, encoded: Any, doc_log_prior: Float[Array, "B K"]) -> Any:
    """Fusion-in-Decoder (Izacard & Grave 2021): the encoded inputs of each question's passages as one, rows `B`.

    Of the prior only -inf counts, which means that a passage does not exist. Raises `ValueError` for a generator that
    cannot fuse.
    """
    if generator.fuse is None:
        raise ValueError("this generator has no `fuse`, which Fusion-in-Decoder needs")
    return generator.fuse(encoded, ~jnp.isneginf(doc_log_prior))


def fused_log_prior(doc_log_prior: Float[Array, "B K"]) -> Float[Array, "B 1"]:
    """The prior of the fused input, by which Fusion-in-Decoder is RAG-Token with one passage.

    It is certain, `log p = 0`; where no passage exists it does not exist either, -inf.
    """
    return jnp.where(jnp.all(jnp.isneginf(doc_log_prior), axis=1, keepdims=True), -jnp.inf, 0.0)


def rows(inputs: Tokens) -> Tokens:
    """`[B, K, S]` as the `[B * K, S]` rows that the generator reads."""
    return Tokens(inputs.ids.reshape(-1, inputs.ids.shape[-1]), inputs.lengths.reshape(-1))


def _take(ids: Int[Array, "B K P"], position: Int[Array, "B K S"]) -> Int[Array, "B K S"]:
    """Tokens at positions, which are clipped to the sequence; the caller masks those outside."""
    return jnp.take_along_axis(ids, jnp.clip(position, 0, ids.shape[2] - 1), axis=2)
