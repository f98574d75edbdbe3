"""What a training step is composed of."""

from typing import NamedTuple

import optax

from rag_jax.core.losses import Objective
from rag_jax.core.modes import Retrieve, retrieve_nearest
from rag_jax.core.retrieval import LOCAL, Index
from rag_jax.core.trainable import Mask, everything
from rag_jax.types import Networks


class Recipe(NamedTuple):
    """The parts of a training step.

    `num_microbatches` trades time for memory: gradients are accumulated over the microbatches, and the update is that
    of the whole batch. `pack_lengths` save the work on padding: the inputs are packed, with room for each of these
    lengths per input on average, and the shortest that holds them is computed. Every length is compiled, since the
    passages are known inside the program only. Both change which dropout masks are drawn, and nothing else.
    """

    networks: Networks
    objective: Objective
    optimizer: optax.GradientTransformation
    num_docs: int  # K
    max_length: int  # S at most
    retrieve: Retrieve = retrieve_nearest
    lookup: Index = LOCAL
    num_microbatches: int = 1
    pack_lengths: tuple[int, ...] = ()  # tokens, ascending, below `max_length`
    num_packs: int = 1  # the devices that a batch is spread over
    trainable: Mask = everything  # the others get neither gradient nor optimizer state
    header: tuple[int, ...] = ()  # tokens before every passage
    fuses: bool = False  # Fusion-in-Decoder: the objective gets one fused passage, with prior 1
