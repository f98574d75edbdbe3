"""Training examples: questions as their tower reads them, with rows of their gold passages and hard negatives.

What a batch consists of is drawn by a grain iterator, a pure function of the seed: in each epoch every question once,
with one of its gold passages and some of its hard negatives. `get_state` and `set_state` resume it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import grain
import numpy as np
from jaxtyping import Int
from rich.console import Console

from rag_jax.config.contrastive import ContrastiveConfig
from rag_jax.contrastive.towers import Towers
from rag_jax.data.questions import Question
from rag_jax.data.stream import NO_THREADS
from rag_jax.errors import InputError
from rag_jax.index.store import Store
from rag_jax.pipeline.gold_passages import check_gold, other_pieces


@dataclass(frozen=True)
class Examples:
    """Questions with what is known about their passages, as rows of the store."""

    questions: list[Question]
    question_tokens: list[list[int]]
    gold: list[list[int]]  # one at least
    negatives: list[list[int]]  # hard negatives; may be empty
    teacher: list[dict[int, float]] | None = None  # scores of gold passages and hard negatives, see `teacher`
    pieces: list[list[int]] | None = None  # the other passages of documents that are gold: never wrong; None: none

    def __len__(self) -> int:
        return len(self.questions)

    @property
    def right(self) -> list[list[int]]:
        """The passages of each question that are not contrasted with it."""
        return [[*gold, *more] for gold, more in zip(self.gold, self.pieces or [[]] * len(self), strict=True)]


def make_examples(
    config: ContrastiveConfig,
    towers: Towers,
    store: Store,
    questions: Sequence[Question],
    negatives: Mapping[str, Sequence[int]],
    console: Console,
) -> Examples:
    """Tokenise the training questions. Prints how many are cut.

    Args:
        negatives: rows of hard negatives by the id of the question.

    Raises `InputError` for a question without a gold passage in the store, and where nothing remains to learn from.
    """
    if not questions:
        raise InputError("no questions to train on; give a question file that holds some")
    check_gold(store, questions, "training questions")
    named = sorted({id for question in questions for id in question.positive_ids})
    rows = dict(zip(named, store.find(named).tolist(), strict=True))
    gold = [[rows[id] for id in question.positive_ids if rows[id] >= 0] for question in questions]
    for question, own in zip(questions, gold, strict=True):
        if not own:
            problem = f"question {question.id!r} names no gold passage of the corpus"
            raise InputError(f"{problem}; contrastive training needs positive_ids, or leave it out")
    if not config.contrastive.hard_negatives and len({row for own in gold for row in own}) == 1:
        problem = "all training questions have the same gold passage, which leaves nothing to contrast it with"
        raise InputError(f"{problem}; give questions about other passages, or contrastive.hard_negatives")
    mined = [list(negatives.get(question.id, ())) for question in questions]
    if config.contrastive.hard_negatives and not any(mined):
        raise InputError(f"contrastive.hard_negatives is {config.contrastive.hard_negatives}, {NO_NEGATIVES}")
    tokens, lost = towers.question_tokenizer(config)([question.question for question in questions])
    cut = sum(count > 0 for count in lost)
    if cut:
        what = f"cut {cut:,} of {len(questions):,} training questions"
        console.print(f"{what}: more than {config.retriever.max_question} tokens (retriever.max_question)")
    others = other_pieces(store, named)
    pieces = [[row for id in question.positive_ids for row in others[id]] for question in questions]
    return Examples(list(questions), tokens, gold, mined, pieces=pieces)


def draws(examples: Examples, batch_size: int, hard_negatives: int, seed: int) -> grain.DatasetIterator:
    """Yield `[B, 2 + H]` endlessly: the number of a question, the row of its gold passage, those of hard negatives.

    A question with fewer than H hard negatives has -1 for the rest.
    """

    def draw(number: int, rng: np.random.Generator) -> Int[np.ndarray, " drawn"]:
        drawn = np.full(2 + hard_negatives, -1, np.int32)
        drawn[:2] = number, rng.choice(examples.gold[number])
        own = examples.negatives[number]
        chosen = rng.choice(len(own), min(hard_negatives, len(own)), replace=False)
        drawn[2 : 2 + len(chosen)] = [own[i] for i in chosen]
        return drawn

    numbers = grain.MapDataset.range(len(examples)).seed(seed).shuffle().repeat()
    return iter(numbers.random_map(draw).batch(batch_size).to_iter_dataset(NO_THREADS))


NO_NEGATIVES = (
    "but no question has any; name a file of them, data.negatives (rag-jax mine writes one), or set it to 0: negatives "
    "are then the other passages of the batch"
)
