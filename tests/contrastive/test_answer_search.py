"""A search for answers finds what the test of a single text finds."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_jax.contrastive.answer_search import AnswerSearch
from rag_jax.corpus.passage import Passage
from rag_jax.data.question import Question
from rag_jax.evaluation.metrics.answers import holds_answer

WORDS = ("Jane", "jane", "Austen", "an", "a", "é", "e\u0301", "2", "22", "!", "-", "")
texts = st.lists(st.sampled_from(WORDS), max_size=5).map(" ".join) | st.lists(st.sampled_from(WORDS), max_size=3).map(
    "".join
)
passages = st.lists(st.builds(Passage, st.just("p"), texts, texts), min_size=1, max_size=5)
plain = st.lists(texts, max_size=3).map(lambda answers: Question("q", "who?", tuple(answers)))
patterns = st.sampled_from([Question("q", "who?", each, regex=True) for each in (("^2",), ("JANE|!", "2{2}"))])


@settings(max_examples=50, deadline=None)
@given(passages, st.lists(plain | patterns, min_size=1, max_size=4), st.data())
def test_what_holds_an_answer_is_as_holds_answer_says(passages, questions, data) -> None:
    rows = data.draw(st.lists(st.integers(-1, len(passages) - 1), min_size=1, max_size=8))
    search = AnswerSearch(passages)
    expected = np.zeros((len(questions), len(rows)), bool)
    for i, question in enumerate(questions):
        for j, row in enumerate(rows):
            if row >= 0:
                parts = passages[row].title, passages[row].text
                expected[i, j] = any(holds_answer(part, question) for part in parts)
                assert search.holds(question, row) == expected[i, j]
    np.testing.assert_array_equal(search.find(questions, np.asarray(rows)), expected)


def test_an_answer_is_not_found_across_title_and_text() -> None:
    search = AnswerSearch([Passage("1", "Jane", "Austen wrote it"), Passage("2", "", "by Jane Austen")])
    question = Question("q", "who?", ("Jane Austen",))
    assert search.find([question], np.asarray([0, 1])).tolist() == [[False, True]]


def test_a_passage_is_read_once() -> None:
    class Counting(list):
        reads = 0

        def __getitem__(self, row):
            self.reads += 1
            return super().__getitem__(row)

    passages = Counting([Passage("1", "Emma", "by Jane Austen"), Passage("2", "Emma", "a novel")])
    search, question = AnswerSearch(passages), Question("q", "who?", ("Austen",))
    for _ in range(3):
        assert search.find([question, question], np.asarray([0, 1, 0])).tolist() == [[True, False, True]] * 2
    assert passages.reads == 2
