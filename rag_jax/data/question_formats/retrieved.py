"""Questions with the passages that a retriever found for them: DPR's output, its training data, and Atlas.

    {"question": "…", "answers": ["…"], "ctxs": [{"id": "17", "title": "…", "text": "…", "score": "80.1"}]}
    {"question": "…", "answers": ["…"], "positive_ctxs": [{"passage_id": "17", …}], "hard_negative_ctxs": […]}
    {"question": "…", "target": "…", "passages": [{"id": "17", "title": "…", "text": "…"}]}

Of the passages only the ids are read: their texts are those of the index. DPR's `negative_ctxs`, random passages, are
left out.
"""

from rag_jax.data.question import Question
from rag_jax.data.question_formats.format import Format, Row, any_of, listed_passages, read_answers

ANSWERS = ("answers", "answer", "target")
PASSAGE_IDS = ("id", "passage_id", "psg_id", "docid")
TRAINING_IDS = ("passage_id", "psg_id", "id")  # the first in the file of NQ, the second in DPR's others


def _dpr_output(question: Question, row: Row, location: str) -> Question:
    return _retrieved(question, row, "ctxs", location)


def _atlas(question: Question, row: Row, location: str) -> Question:
    return _retrieved(question, row, "passages", location)


def _retrieved(question: Question, row: Row, name: str, location: str) -> Question:
    """With the ids of the passages, unless the row names others as `passage_ids`."""
    found = listed_passages(row, name, PASSAGE_IDS, location)
    answers = read_answers(row, ANSWERS, location)
    return question._replace(answers=answers, passage_ids=question.passage_ids or found)


def _dpr_training(question: Question, row: Row, location: str) -> Question:
    positives, negatives = (
        listed_passages(row, name, TRAINING_IDS, location) for name in ("positive_ctxs", "hard_negative_ctxs")
    )
    return question._replace(
        answers=read_answers(row, ANSWERS, location),
        positive_ids=question.positive_ids or positives,
        negative_ids=question.negative_ids or negatives,
    )


def _is_atlas(row: Row) -> bool:
    return "question" in row and ("passages" in row or ("target" in row and not any_of(row, ("answers", "answer"))))


DPR_TRAINING = Format("DPR training", "question", lambda row: "positive_ctxs" in row, _dpr_training)
DPR_OUTPUT = Format("DPR output", "question", lambda row: "ctxs" in row, _dpr_output)
ATLAS = Format("Atlas", "question", _is_atlas, _atlas)
