"""TriviaQA (Joshi et al. 2017), a JSON document.

    {"Data": [{"QuestionId": "tc_1", "Question": "…", "Answer": {"Value": "…", "Aliases": ["…"]}}], "Domain": "…"}

Correct are the value, its aliases, and the answers that annotators added (`HumanAnswers`), as in the official script.
There punctuation becomes spaces, where the scores of SQuAD delete it: `NormalizedAliases` come last, and only those
that are no alias again without punctuation, as "ac dc" beside "AC/DC".
"""

import re

from rag_jax.data.jsonl import validate_text
from rag_jax.data.question import Question
from rag_jax.data.question_formats.format import Format, Row, any_of, text_list
from rag_jax.errors import InputError


def _fill(question: Question, row: Row, location: str) -> Question:
    answer = row.get("Answer")
    if answer is None:
        return question
    if not isinstance(answer, dict):
        raise InputError(f'{location}: "Answer" is not an object; write it as {{"Value": …, "Aliases": […]}}')
    value = validate_text(answer.get("Value"), "Value", location)
    more = [text_list(answer.get(name), name, location) for name in ("Aliases", "HumanAnswers")]
    normalized = answer.get("NormalizedAliases")
    others = [each for each in normalized if isinstance(each, str)] if isinstance(normalized, list) else []
    named = dict.fromkeys([value, *more[0], *more[1]])
    known = {"", *map(_letters, named)}
    return question._replace(answers=(*named, *(each for each in dict.fromkeys(others) if _letters(each) not in known)))


def _letters(alias: str) -> str:
    """Without punctuation, articles, case and repeated spaces, as the scores read it."""
    words = re.sub(r"[^\w\s]|_", "", alias.lower()).split()
    return " ".join(word for word in words if word not in ("a", "an", "the"))


TRIVIAQA = Format(
    "TriviaQA",
    "Question",
    matches=lambda row: "Question" in row and any_of(row, ("Answer", "QuestionId")),
    fill=_fill,
    remedy='write "Answer" as {"Value": …, "Aliases": […]}',
)
