"""TriviaQA (Joshi et al. 2017), a JSON document.

    {"Data": [{"QuestionId": "tc_1", "Question": "…", "Answer": {"Value": "…", "Aliases": ["…"]}}], "Domain": "…"}

Correct are the value, its aliases, and the answers that annotators added (`HumanAnswers`), as in the official script.
`NormalizedAliases`, in lower case and without punctuation, are left out: they are poor targets for training. The
official script compares with them alone, where a hyphen became a space; exact match here is SQuAD's, which deletes it.
"""

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
    return question._replace(answers=tuple(dict.fromkeys([value, *more[0], *more[1]])))


TRIVIAQA = Format(
    "TriviaQA",
    "Question",
    matches=lambda row: "Question" in row and any_of(row, ("Answer", "QuestionId")),
    fill=_fill,
    remedy='write "Answer" as {"Value": …, "Aliases": […]}',
)
