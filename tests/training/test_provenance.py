"""What a run depends on: the digest of its training questions."""

import json
from dataclasses import replace

import pytest

from rag_jax.data.question import Question
from rag_jax.training.provenance import _question_bytes

QUESTION = Question("1", "who?", ("me",), ("17",), ("3",), negative_ids=("8",))


@pytest.mark.parametrize("engine", ["device", "fixed"])
def test_questions_count_by_the_fields_that_training_reads(towns, engine: str) -> None:
    config = replace(towns, retriever=replace(towns.retriever, engine=engine))
    passage_ids = ["3"] if engine == "fixed" else []
    expected = ["1", "who?", ["me"], ["17"], passage_ids, [], [], [], False]
    assert [json.loads(each) for each in _question_bytes([QUESTION], config)] == [expected]
