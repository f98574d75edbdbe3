"""Towers of random weights, trained contrastively for a few steps: what an end-to-end training can start from.

What random towers find helps no reader, and passages that do not help teach towers nothing, so that the search never
gets better. REALM (Guu et al. 2020) begins with the inverse cloze task; here the towers see a few batches of questions
with their gold passages. One tower encodes both; from there question and passage tower are trained apart.
"""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import jax

from rag_jax import hub
from rag_jax.config.config import AdamW, Config
from rag_jax.config.contrastive import BiEncoder, Contrast, ContrastiveConfig, Data
from rag_jax.contrastive.checks import check
from rag_jax.contrastive.run import RESULTS, train_and_evaluate
from rag_jax.data import strict_json
from rag_jax.data.tokenizers import fingerprint
from rag_jax.errors import InputError
from rag_jax.experiments.scores import at_1
from rag_jax.models import registry
from rag_jax.pipeline import digests
from rag_jax.pipeline.checkpoint_folders import TOWERS

SEED = 0  # of the weights
LEARNING_RATE = 3e-4  # for random weights; trained ones would forget


class RandomTower(NamedTuple):
    """A random tower and its training."""

    like: hub.TowerCheckpoint  # whose sizes, tokenizer and inputs it has
    config: ContrastiveConfig
    workdir: Path  # of the training

    def started(self, config: Config) -> Config:
        """A config whose towers start from the trained tower, with the index by it."""
        retriever = dataclasses.replace(config.retriever, tower=str(self.workdir / TOWERS), passage_tower=None)
        index = None if config.data.index is None else self.workdir / "index"  # None: it builds another
        data = dataclasses.replace(config.data, index=index)
        return dataclasses.replace(config, data=data, retriever=retriever)

    def train(self) -> None:
        """Write the random tower and train it, unless that is done."""
        if not (self.workdir / RESULTS).exists():
            write_tower(Path(self.config.retriever.tower), self.like)
            train_and_evaluate(self.config, self.workdir)

    @property
    def recall(self) -> float:
        """Its recall@1 on the evaluation questions, after this training."""
        return at_1(strict_json.loads((self.workdir / RESULTS).read_text()))


def random_tower(config: Config, steps: int, folder: Path) -> RandomTower:
    """A random tower of the sizes of a config's, in a folder below `folder`; writes nothing.

    Args:
        steps: of contrastive training.

    Raises `InputError` for a config that it cannot be trained for, or a folder with the run of another.
    """
    like, c = hub.load_tower(config.retriever.tower), config.retriever
    if config.data.passages is None:
        raise InputError("random towers are trained on data.passages, which the config lacks; --no-from-scratch")
    if c.vector_width is not None:
        problem = f"retriever.vector_width is {c.vector_width}, and random towers learn whole vectors"
        raise InputError(f"{problem}; leave it out, or --no-from-scratch")
    weights = folder / f"random-tower-{digest_of(like)}"
    training = ContrastiveConfig(
        Data(config.data.passages, config.data.train, None, config.data.evaluation, config.data.passage_words),
        BiEncoder(
            tower=str(weights),
            trained="shared",
            vector_norm=c.vector_norm,
            dropout=0.0,
            max_question=c.max_question,
            max_passage=c.max_passage,
            passage_template=c.passage_template,
            question_template=c.question_template,
        ),
        Contrast(hard_negatives=0, length_groups=1),
        AdamW(LEARNING_RATE, warmup=steps // 2, clip=1.0),
        mesh=config.mesh,
        compute=dataclasses.replace(config.compute, accumulate=1, prefill_chunk=None),  # both of a generator
        steps=steps,
        batch_size=config.batch_size,
        seed=SEED,
    )
    workdir = folder / f"{weights.name}-{steps}-steps"
    check(training, workdir)
    return RandomTower(like, training, workdir)


def digest_of(like: hub.TowerCheckpoint) -> str:
    """A short digest of what `write_tower` makes a tower of: all but the weights, and the seed of the random ones."""
    tokenizer = None if like.tokenizer is None else fingerprint(like.tokenizer)
    made_of = [repr(like.config), tokenizer, dict(like.tokenizer_settings), *like.input_format, SEED]
    return digests.digest([digests.json_bytes(made_of)])[:8]


def write_tower(folder: Path, like: hub.TowerCheckpoint) -> None:
    """Write a tower of the sizes of another, with random weights, unless it is there."""
    if folder.exists():
        return
    params = registry.tower_of(like.config).init(like.config, jax.random.key(SEED))
    hub.save(folder, dataclasses.replace(like, params=params, side=None))
