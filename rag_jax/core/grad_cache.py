"""GradCache (Gao et al. 2021): a contrastive batch of any size in the memory of a chunk.

In-batch negatives tie all vectors of a batch together, so that the gradient cannot be accumulated over parts of the
batch as in `rag_jax.core.microbatches`. It can be over the encoding of vectors, by the chain rule

    dL/dtheta = sum_chunks (dL/dvectors of the chunk) . (dvectors of the chunk / dtheta).

All chunks are encoded, keeping nothing but the vectors; the loss and its gradient with respect to them are computed;
then each chunk is encoded again, with the same dropout, and its part of that gradient is pulled back and added up. A
loop over chunks whose body is rematerialised has exactly this derivative, so the objective is differentiated as usual.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rag_jax.core import microbatches
from rag_jax.types import DropoutKey, PackedInputs, Params, Tokens, Tower


def encode(
    tower: Tower, params: Params, tokens: Tokens | PackedInputs, key: DropoutKey = None, chunk: int | None = None
) -> Float[Array, "R D"]:
    """The vectors of all rows, encoded and differentiated in chunks of `chunk` rows; None: all rows at once.

    Chunk c, which are the rows c, c + n, c + 2n, ... of n chunks, has the dropout key `fold_in(key, c)`. All rows at
    once are chunk 0. Raises `ValueError` if `chunk` does not divide the number of rows, and for packed rows, which are
    encoded at once.
    """

    def encode_chunk(params: Params, number: Array | int, rows: Tokens | PackedInputs) -> Float[Array, "rows D"]:
        return tower(params, rows, None if key is None else jax.random.fold_in(key, number))

    if chunk is None:
        return encode_chunk(params, 0, tokens)
    if isinstance(tokens, PackedInputs):
        raise ValueError("packed rows are encoded at once; give rows to encode them in chunks")
    num_rows = tokens.ids.shape[0]
    if chunk < 1 or num_rows % chunk:
        raise ValueError(f"{num_rows} rows are not divisible into chunks of {chunk}")

    num_chunks = num_rows // chunk
    chunks = jax.tree.map(lambda each: microbatches.split(each, num_chunks), tokens)
    again = jax.checkpoint(encode_chunk, prevent_cse=False)  # a loop already keeps the two passes apart
    vectors = jax.lax.map(lambda numbered: again(params, *numbered), (jnp.arange(num_chunks), chunks))
    return microbatches.join(vectors)
