"""Batches of drawn questions and passages."""

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers

from rag_jax.contrastive.batches import Collator, passage_rows
from rag_jax.contrastive.examples import Examples
from rag_jax.contrastive.layout import Layout, Size
from rag_jax.corpus.passage import Passage
from rag_jax.data.question import Question
from rag_jax.index.encoder import TextEncoder
from rag_jax.index.store import without_vectors


def test_the_gold_passages_come_first_then_every_question_s_hard_negatives() -> None:
    drawn = np.asarray([[0, 10, 11, 12], [1, 20, 21, -1]], np.int32)
    assert passage_rows(drawn).tolist() == [10, 20, 11, 12, 21, -1]


def test_questions_keep_their_order() -> None:
    questions = [Question(str(i), "q", ("a",), (f"p{i}",)) for i in range(4)]
    tokens, passages = [[1] * 5, [2] * 2, [3] * 7, [4] * 3], [Passage(f"p{i}", "", "word " * (4 - i)) for i in range(4)]
    examples = Examples(questions, tokens, [[0], [1], [2], [3]], [[]] * 4)
    encoder = TextEncoder(None, {}, whitespace_tokenizer(), 16, "{text}")  # pyright: ignore[reportArgumentType]
    collate = Collator(
        examples, without_vectors(passages), encoder, Layout(Size(8, 8), (Size(8, 8), Size(16, 16)), 16, 16, None)
    )
    drawn = np.asarray([[2, 2], [0, 0], [3, 3], [1, 1]], np.int32)
    batch = collate(drawn, np.ones((4, 4), bool), None)
    assert np.asarray(batch.questions.lengths).tolist() == [7, 5, 3, 2]
    assert batch.questions.ids.shape == (4, 8)
    joined = np.concatenate([np.asarray(group.lengths) for group in batch.passages])
    assert joined[np.asarray(batch.place)].tolist() == [2, 4, 1, 3]


def whitespace_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "word": 1}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer
