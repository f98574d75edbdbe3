"""Rotary position embedding (Su et al. 2021): queries and keys are rotated by their positions.

Coordinates `i` and `i + d/2` of a head are one pair, as in transformers; the pairs of Llama's and Mistral's own weights
are neighbours, and conversion permutes them.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


@dataclass(frozen=True)
class Rope:
    """The angle of pair `i` at position `p` is `p * theta ** (-2 i / d)`, scaled for contexts beyond pre-training's.

    linear: all angles are divided by `factor`. llama3: those of long wavelengths are, and those of short ones are not;
    those in between are interpolated (Dubey et al. 2024).
    """

    theta: float = 10_000.0
    scaling: Literal["none", "linear", "llama3"] = "none"
    factor: float = 1.0
    low_freq_factor: float = 1.0  # llama3: wavelengths above `original_positions / low_freq_factor` are long
    high_freq_factor: float = 4.0  # llama3: those below `original_positions / high_freq_factor` are short
    original_positions: int = 8_192  # llama3: positions of pre-training

    def frequencies(self, head_width: int) -> Float[np.ndarray, " half"]:
        """Radians per position of each pair."""
        pairs = np.arange(0, head_width, 2, dtype=np.float32) / np.float32(head_width)
        plain = (1.0 / np.float32(self.theta) ** pairs).astype(np.float32)
        if self.scaling == "none":
            return plain
        if self.scaling == "linear":
            return (plain / np.float32(self.factor)).astype(np.float32)
        turns = self.original_positions * plain / (2 * np.pi)  # in the positions of pre-training
        kept = (turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)
        kept = np.clip(kept, 0, 1)
        return (kept * plain + (1 - kept) * plain / self.factor).astype(np.float32)


class Rotation(NamedTuple):
    """Cosines and sines of the angles at some positions, float32."""

    cos: Float[Array, "#R T half"]
    sin: Float[Array, "#R T half"]


def rotation(rope: Rope, head_width: int, position: Int[Array, "#R T"]) -> Rotation:
    """The rotation at each position."""
    angles = position.astype(jnp.float32)[:, :, None] * jnp.asarray(rope.frequencies(head_width))[None, None, :]
    return Rotation(jnp.cos(angles), jnp.sin(angles))


def rotate(heads: Float[Array, "R T H d"], by: Rotation) -> Float[Array, "R T H d"]:
    """Rotate each head by its token's position."""
    cos, sin = by.cos[:, :, None, :], by.sin[:, :, None, :]
    first, second = jnp.split(heads.astype(jnp.float32), 2, axis=3)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=3).astype(heads.dtype)
