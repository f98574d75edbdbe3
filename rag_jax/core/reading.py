"""From retrieved passages to generator inputs `header title / text // question </s>`, and to logits.

Passages and questions are tokenised beforehand; they are joined by integer gathers inside the compiled program. The
text between passage and question is part of the question's prompt, so that truncating a passage never removes it. The
prompt may have a part before the passage too: `PASSAGE` separates it from the rest. A header, such as a system prompt,
is the same for all inputs.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rag_jax.core import likelihood, packing
from rag_jax.core.dropout import split
from rag_jax.types import PASSAGE, DropoutKey, Generator, PackedInputs, Params, Tokens


class InputLayout(NamedTuple):
    """How the passages of a question are laid out in the generator's inputs, and read.

    Usually each passage is read by itself, and marginalised over. With several `passages_per_input`, best first, the
    inputs are marginalised over instead; one input of all K passages is the baseline without any marginalisation
    ("stuffing"), in which the retriever's scores play no part. With `fuses` the decoder reads all passages together,
    each encoded by itself (Fusion-in-Decoder, Izacard & Grave 2021).

    `pack_lengths` save the work on padding: inputs are packed, with room for each of these lengths per input on
    average, and the shortest that holds them is computed. Every length is compiled, since the passages are known inside
    the program only.
    """

    max_length: int  # S at most
    header: tuple[int, ...] = ()  # tokens before the first passage of every input
    passages_per_input: int = 1
    separator: tuple[int, ...] = ()  # tokens between the passages of an input
    fuses: bool = False
    pack_lengths: tuple[int, ...] = ()  # tokens, ascending, below `max_length`
    num_packs: int = 1  # the devices that a batch is spread over

    @property
    def has_posterior(self) -> bool:
        """Whether the answer's posterior is over the passages."""
        return self.passages_per_input == 1 and not self.fuses


def assemble(passages: Tokens, prompts: Tokens, layout: InputLayout) -> Tokens:
    """Join header, passages `[B, K, P]` and prompts `[B, L]` to generator inputs `[B, N, S]`, S at most `max_length`.

    N is K, or K / `passages_per_input`, rounded up. Where the whole is too long the last passage is truncated, never
    the header or the question. Raises `ValueError` where these alone are longer than `max_length`.
    """
    fixed = len(layout.header) + prompts.ids.shape[1]
    if fixed > layout.max_length:
        raise ValueError(f"a header and prompts of {fixed} tokens do not fit into inputs of {layout.max_length}")
    if layout.passages_per_input > 1:
        passages = _join(passages, layout.passages_per_input, layout.separator)
    size = min(passages.ids.shape[2] + fixed, layout.max_length) - len(layout.header)
    before, marks = _place_of_passage(prompts)
    prompt_length = prompts.lengths[:, None] - marks
    passage_length = jnp.minimum(passages.lengths, size - prompt_length)
    shape = (*passage_length.shape, size)
    position = jnp.broadcast_to(jnp.arange(size, dtype=passage_length.dtype)[None, None, :], shape)
    in_passage = position - before[:, :, None]
    is_behind = in_passage >= passage_length[:, :, None]
    in_prompt = position - jnp.where(is_behind, passage_length[:, :, None] - marks[:, :, None], 0)
    prompt = jnp.broadcast_to(prompts.ids[:, None, :], (*shape[:2], prompts.ids.shape[1]))
    from_passage = _take(passages.ids.astype(jnp.int32), in_passage)
    ids = jnp.where((in_passage < 0) | is_behind, _take(prompt, in_prompt), from_passage)
    start = jnp.asarray(layout.header, jnp.int32)[None, None, :]
    start = jnp.broadcast_to(start, (*shape[:2], len(layout.header)))
    return Tokens(jnp.concatenate([start, ids], axis=2), len(layout.header) + passage_length + prompt_length)


def group_log_prior(doc_log_prior: Float[Array, "B K"], layout: InputLayout) -> Float[Array, "B n"]:
    """The prior of what a target is read under: each passage, a group of them in one input, or all of them fused.

    log p(g|x) = log sum_{z in g} p(z|x)

    A group of all passages is certain, `log p = 0`. One without any passage does not exist, -inf.
    """
    num_docs = doc_log_prior.shape[1]
    size = num_docs if layout.fuses else layout.passages_per_input
    if layout.has_posterior:
        return doc_log_prior
    if size >= num_docs:
        return jnp.where(jnp.all(jnp.isneginf(doc_log_prior), axis=1, keepdims=True), -jnp.inf, 0.0)
    padded = jnp.pad(doc_log_prior, ((0, 0), (0, -num_docs % size)), constant_values=-jnp.inf)
    return likelihood.log_sum_exp(jnp.swapaxes(padded.reshape(len(padded), -1, size), 1, 2))


def encode(
    generator: Generator, params: Params, inputs: Tokens, layout: InputLayout, doc_log_prior: Float[Array, "B K"]
) -> Any:
    """The encoded inputs `[B, N, S]`, without dropout; fused ones have a row per question."""
    packs, shortest = packing.pack_at_lengths(inputs, layout.num_packs, layout.pack_lengths)
    encoding = partial(generator.encode, params)
    if len(packs) == 1:
        encoded = encoding(rows(inputs))
    else:  # all of them packed, since a network may keep less of what is not
        whole = packing.pack(rows(inputs), layout.num_packs, inputs.ids.size // layout.num_packs)
        encoded = jax.lax.switch(shortest, [partial(encoding, each) for each in (*packs[:-1], whole)])
    return fuse(generator, encoded, doc_log_prior) if layout.fuses else encoded


def predict(
    generator: Generator,
    params: Params,
    encoded: Any,
    decoder_inputs: Int[Array, "B T"],
    n: int,
    key: DropoutKey = None,
) -> Float[Array, "B n T V"]:
    """The logits for one target per question under each of its n encoded inputs (teacher forcing)."""
    states, _ = generator.decode(params, jnp.repeat(decoder_inputs, n, axis=0), encoded, key=key)
    return _by_input(generator.logits(params, states), n)


def read(
    generator: Generator,
    params: Params,
    inputs: Tokens | PackedInputs,
    decoder_inputs: Int[Array, "B T"],
    key: DropoutKey = None,
    fused_by: Float[Array, "B K"] | None = None,
) -> Float[Array, "B n T V"]:
    """The generator's logits for one target under each of N inputs `[B, N, S]` or packed rows (teacher forcing).

    n is N, or 1 where `fused_by`, the prior over the passages, is given: the target is then read under all together.
    """
    inputs = inputs if isinstance(inputs, PackedInputs) else rows(inputs)
    n = packing.unpacked(inputs).lengths.shape[0] // decoder_inputs.shape[0]
    if generator.read_targets is not None and fused_by is None:
        states = generator.read_targets(params, inputs, jnp.repeat(decoder_inputs, n, axis=0), key)
        return _by_input(generator.logits(params, states), n)
    encode_key, decode_key = split(key)
    encoded = generator.encode(params, inputs, encode_key)
    if fused_by is not None:
        encoded, n = fuse(generator, encoded, fused_by), 1
    return predict(generator, params, encoded, decoder_inputs, n, decode_key)


def fuse(generator: Generator, encoded: Any, doc_log_prior: Float[Array, "B K"]) -> Any:
    """Fusion-in-Decoder (Izacard & Grave 2021): the encoded inputs of each question's passages as one, rows `B`.

    Of the prior only -inf counts, which means that a passage does not exist. Raises `ValueError` for a generator that
    cannot fuse.
    """
    if generator.fuse is None:
        raise ValueError("this generator has no `fuse`, which Fusion-in-Decoder needs")
    return generator.fuse(encoded, ~jnp.isneginf(doc_log_prior))


def rows(inputs: Tokens) -> Tokens:
    """`[B, K, S]` as the `[B * K, S]` rows that the generator reads."""
    return Tokens(inputs.ids.reshape(-1, inputs.ids.shape[-1]), inputs.lengths.reshape(-1))


def _by_input(logits: Float[Array, "R T V"], n: int) -> Float[Array, "B n T V"]:
    return logits.reshape(-1, n, *logits.shape[1:])


def _place_of_passage(prompts: Tokens) -> tuple[Int[Array, "B 1"], Int[Array, "B 1"]]:
    """The number of tokens of each prompt before the passage, and of the marks in it that say so: 1 or 0."""
    is_mark = (prompts.ids == PASSAGE) & prompts.mask
    place, marks = jnp.argmax(is_mark, axis=1), jnp.any(is_mark, axis=1)  # the place is 0 without a mark
    return place[:, None].astype(prompts.lengths.dtype), marks[:, None].astype(prompts.lengths.dtype)


def _take(ids: Int[Array, "B K P"], position: Int[Array, "B K S"]) -> Int[Array, "B K S"]:
    """Tokens at positions, which are clipped to the sequence; the caller masks those outside."""
    return jnp.take_along_axis(ids, jnp.clip(position, 0, ids.shape[2] - 1), axis=2)


def _join(passages: Tokens, per_input: int, separator: tuple[int, ...]) -> Tokens:
    """Passages `[B, K, P]` one after the other, `per_input` of them: `[B, N, per_input * (P + separator)]`."""
    batch, num_docs, length = passages.ids.shape
    missing = -num_docs % per_input
    lengths = jnp.pad(passages.lengths, ((0, 0), (0, missing))).reshape(batch, -1, per_input)
    ids = jnp.pad(passages.ids.astype(jnp.int32), ((0, 0), (0, missing), (0, 0))).reshape(*lengths.shape, length)
    # The separator stands before every passage but the first, and before none that is missing.
    before = jnp.broadcast_to(jnp.asarray(separator, jnp.int32), (*lengths.shape, len(separator)))
    ids = jnp.concatenate([before, ids], axis=3)
    first = jnp.arange(per_input)[None, None, :] == 0
    from_token = jnp.where(first, len(separator), 0)[..., None]
    end = jnp.where(lengths > 0, len(separator) + lengths, 0)[..., None]
    position = jnp.arange(ids.shape[3])[None, None, None, :]
    kept = ((position >= from_token) & (position < end)).reshape(*lengths.shape[:2], -1)
    order = jnp.argsort(~kept, axis=2, stable=True)  # the tokens that are kept, in order, before the others
    ids = jnp.take_along_axis(ids.reshape(kept.shape), order, axis=2)
    return Tokens(ids, jnp.sum(kept, axis=2, dtype=lengths.dtype))
