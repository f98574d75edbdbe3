"""What is measured: at full size on an accelerator, and tiny, so that the same code runs in the suite."""

from dataclasses import dataclass

from benchmarks.cases import Case, Sizes
from benchmarks.train_cases import Shapes


@dataclass(frozen=True)
class Scale:
    """The sizes of every part."""

    networks: Sizes  # of training and decoding
    passages: int  # N, at most: as many of them as fit on the device
    width: int  # D
    queries: tuple[int, ...]  # B of each search
    train: Shapes
    decode: Case
    matrix: int  # rows and columns of the matrix product that gives the rate
    copied: int  # bytes of the copy that gives the rate
    rounds: int  # timed repetitions
    stretch: int  # training steps of one repetition: a run waits for none of them
    checked: int  # N of the search that is compared with the host's
    variants: int  # of the decoders, at most


FULL = Scale(
    networks=Sizes(layers=12, width=1_024, dtype="bfloat16"),
    passages=21_015_324,
    width=768,
    queries=(1, 8, 64),
    train=Shapes(questions=16, docs=5, question=32, prompt=32, passage=224, target=32),
    decode=Case(questions=32, docs=10, beams=4, target=16, inputs=128),
    matrix=8_192,
    copied=2**32,
    rounds=10,
    stretch=5,
    checked=200_000,
    variants=9,
)
TINY = Scale(
    networks=Sizes(tower_layers=1, tower_width=64, layers=1, width=64, dtype="bfloat16"),
    passages=1_000,
    width=64,
    queries=(1, 3),
    train=Shapes(questions=2, docs=2, question=8, prompt=8, passage=24, target=4),
    decode=Case(questions=2, docs=2, beams=2, target=4, inputs=16),
    matrix=64,
    copied=2**16,
    rounds=2,
    stretch=2,
    checked=500,
    variants=1,
)
SCALES = {"full": FULL, "tiny": TINY}
