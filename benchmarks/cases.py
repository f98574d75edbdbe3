"""What is decoded, and whether what it is compared with is there."""

import json
from dataclasses import asdict, dataclass
from importlib.util import find_spec

import numpy as np

from rag_jax.errors import InputError
from rag_jax.models import registry
from rag_jax.models.architecture import GeneratorConfig, TowerConfig

# BART's, but for the start, which it has in common with the end: random weights would repeat it, and end at once.
END, PAD, START = 2, 1, 0
TOWER, GENERATOR = "question_encoder", "generator"  # the folders of the two networks


@dataclass(frozen=True)
class Sizes:
    """The networks, with random weights: a DPR question encoder and BART."""

    tower_layers: int = 12
    tower_width: int = 768
    layers: int = 6
    width: int = 768
    vocabulary: int = 50_265
    dtype: str = "float32"  # of this library
    matmul_precision: str = "default"  # of this library

    @property
    def tower(self) -> TowerConfig:
        """The tower's sizes, with heads of 64."""
        return registry.TOWERS[registry.DEFAULT_TOWER].config(
            width=self.tower_width,
            layers=self.tower_layers,
            heads=self.tower_width // 64,
            ffn_width=4 * self.tower_width,
        )

    @property
    def generator(self) -> GeneratorConfig:
        """The generator's sizes, with heads of 64."""
        return registry.GENERATORS[registry.DEFAULT_GENERATOR].config(
            vocab_size=self.vocabulary,
            width=self.width,
            encoder_layers=self.layers,
            decoder_layers=self.layers,
            heads=self.width // 64,
            ffn_width=4 * self.width,
        )

    def __str__(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, text: str) -> "Sizes":
        return cls(**json.loads(text))


SIZES = {
    "tiny": Sizes(tower_layers=1, tower_width=64, layers=1, width=64),
    "base": Sizes(),
    "large": Sizes(layers=12, width=1_024),
}


@dataclass(frozen=True)
class Case:
    """One measurement. B questions, K passages, W beams, T target tokens."""

    decoder: str = "token"  # token, thorough or fast
    questions: int = 4
    docs: int = 5
    beams: int = 4
    target: int = 16
    inputs: int = 128  # S

    def arrays(self, sizes: Sizes) -> dict[str, np.ndarray]:
        """Random questions, the passages they found and their vectors."""
        draw = np.random.default_rng(0)
        return {
            "question": draw.integers(1_000, 30_000, (self.questions, 32)),
            "passages": draw.integers(4, sizes.vocabulary - 1, (self.questions * self.docs, self.inputs)),
            "vectors": draw.normal(0, 0.05, (self.questions, self.docs, sizes.tower_width)).astype(np.float32),
        }

    def flops(self, sizes: Sizes) -> float:
        """The multiplications and additions that RAG-Token and fast decoding need at least: the floor of their time.

        Every input passes the encoder once, and every token of every beam the decoder; the beams part after the first.
        """
        w, s = sizes.width, self.inputs
        rows = self.questions * self.docs
        layer = 4 * w * w + 2 * w * 4 * w
        reading = rows * s * sizes.layers * (layer + 2 * s * w + 2 * w * w)
        tokens = rows * (1 + self.beams * (self.target - 1))
        writing = tokens * (sizes.layers * (layer + 2 * w * w + 2 * s * w) + w * sizes.vocabulary)
        tower = self.questions * 32 * sizes.tower_layers * 12 * sizes.tower_width**2
        return 2.0 * (reading + writing + tower)


TINY = Case(questions=2, beams=2, target=4, inputs=16)  # for tiny networks: whether it runs at all


def is_installed(module: str) -> bool:
    """Whether what is compared with can be imported."""
    return find_spec(module) is not None


def opponent(module: str) -> None:
    """Raise `InputError` where what is compared with is not installed."""
    if not is_installed(module):
        raise InputError(f"{module}: the opponent is not installed; run pip install {module}")
