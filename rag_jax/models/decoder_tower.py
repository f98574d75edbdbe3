"""A decoder-only network of the Llama family as a tower (Wang et al. 2024, E5-Mistral; Zhang et al. 2025, Qwen3).

The network reads a text causally; its vector is the state of the last token, which has seen all others, or their mean.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from rag_jax.core.packing import unpacked
from rag_jax.models import decoder
from rag_jax.models.architecture import Architecture
from rag_jax.models.decoder import Decoder, DecoderConfig
from rag_jax.models.pooling import Pooling, pool, to_vector
from rag_jax.types import DropoutKey, PackedInputs, Params, Tokens, Tower


@dataclass(frozen=True)
class DecoderTowerConfig(DecoderConfig):
    """The sizes of the network, and pooling."""

    max_positions: int = 32_768
    tied_head: bool = True  # a tower has no head
    pooling: Pooling = "last"
    vector_norm: float | None = None  # rescale vectors to this norm; scores are then its square times the cosine
    truncated_width: int | None = None  # keep so many components, the first, before rescaling; None: all

    @property
    def vector_width(self) -> int:
        """D, the retrieval width."""
        return self.truncated_width or self.width


@lru_cache
def tower(config: DecoderTowerConfig) -> Tower:
    """The tower as a pure function of its parameters; one function per config, so that it compiles once.

    The family is trained without dropout: keys are ignored.
    """
    module = Decoder(config)

    def encode(params: Params, tokens: Tokens | PackedInputs, key: DropoutKey = None) -> Any:
        del key
        states: Any = module.apply({"params": params}, tokens, method=Decoder.read)
        return to_vector(
            pool(states, unpacked(tokens).mask, config.pooling), config.truncated_width, config.vector_norm
        )

    return encode


def flops(config: DecoderTowerConfig, question: float) -> float:
    """FLOPs of one input's forward pass in matrix products: two per weight and token, and those of attention."""
    c, heads = config, config.heads * config.d
    attended = min(question, c.window or question) / 2
    projections = 4 * c.width * (heads + c.num_kv_heads * c.d) + 6 * c.width * c.ffn_width
    return c.decoder_layers * question * (projections + 4 * attended * heads)


ARCHITECTURE = Architecture(
    "decoder_tower",
    DecoderTowerConfig,
    decoder.init,
    tower,
    flops,
    decoder.describe,
)
