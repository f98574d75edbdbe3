"""A family whose parameters are named as transformers' Llama names them, without a network: what loading fills.

    python tests/support/plain_family.py FILE

loads a GGUF file as one of this family, and prints how many bytes the parameters and the process's peak take.
"""

import json
import resource
import sys
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import unflatten_dict

from rag_jax.hub import load_generator, registry
from rag_jax.hub.formats import GeneratorFormat
from rag_jax.hub.tensor_names import TensorNames
from rag_jax.models.architecture import Architecture


@dataclass(frozen=True)
class Sizes:
    vocab_size: int
    width: int
    ffn_width: int
    layers: int
    query_width: int
    key_width: int


def read_config(config) -> Sizes:
    width = config["head_dim"]
    keys = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")
    return Sizes(
        *(config[k] for k in keys), config["num_attention_heads"] * width, config["num_key_value_heads"] * width
    )


def init(sizes: Sizes, key) -> dict[str, Any]:
    """Zeros."""
    s = sizes
    kernels = {
        "self_attn/q_proj": (s.width, s.query_width),
        "self_attn/k_proj": (s.width, s.key_width),
        "self_attn/v_proj": (s.width, s.key_width),
        "self_attn/o_proj": (s.query_width, s.width),
        "mlp/gate_proj": (s.width, s.ffn_width),
        "mlp/up_proj": (s.width, s.ffn_width),
        "mlp/down_proj": (s.ffn_width, s.width),
    }
    shapes = {"model/embed_tokens/embedding": (s.vocab_size, s.width), "model/norm/scale": (s.width,)}
    for layer in (f"model/layers/{n}" for n in range(s.layers)):
        shapes |= {f"{layer}/{name}/kernel": shape for name, shape in kernels.items()}
        shapes |= {f"{layer}/{name}/scale": (s.width,) for name in ("input_layernorm", "post_attention_layernorm")}
    return unflatten_dict({path: jnp.zeros(shape) for path, shape in shapes.items()}, sep="/")


def _none(*_: Any) -> Any:
    raise NotImplementedError


ARCHITECTURE = Architecture("plain", Sizes, init, _none, _none, _none)
FORMAT = GeneratorFormat(ARCHITECTURE, ("llama",), read_config, TensorNames(((r"/", "."),)), _none)


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    registry.GENERATORS = {"plain": FORMAT}
    jax.block_until_ready(jax.jit(jnp.sin)(jnp.ones(8)))
    before = peak()
    loaded = load_generator(sys.argv[1])
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(loaded.params))
    print(json.dumps({"parameters": held, "peak": peak() - before}))
