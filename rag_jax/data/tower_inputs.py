"""What a tower reads of a passage and of a question, as token ids: its checkpoint's own convention, or a template.

DPR's passage tower reads a pair, `[CLS] title [SEP] text [SEP]`; towers of sentence-transformers have prompts before
the text, and a length. A vector belongs to the input it was made of: another wording is another vector.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tokenizers import Tokenizer

from rag_jax.data import templates
from rag_jax.errors import InputError

PAIR = "pair"  # in the place of a passage's template
TITLE_AND_TEXT = "{title}. {text}"  # of towers that say nothing of titles
QUESTION = "{question}"


class TowerInputFormat(NamedTuple):
    """How a tower is fed, as its checkpoint says; the default is that of a BERT that says nothing."""

    passage: str = TITLE_AND_TEXT  # a template, or PAIR
    question: str = QUESTION
    max_length: int | None = None  # tokens of an input, special tokens included; None: as many as it has positions

    def over(self, passage: str | None, question: str | None) -> "TowerInputFormat":
        """This one with the templates that are given. Raises `InputError` for those that cannot be filled in."""
        given = {"passage": passage, "question": question}
        new = self._replace(**{name: each for name, each in given.items() if each is not None})
        if new.passage != PAIR and not _fills(new.passage, title="\1", text="\1"):
            raise InputError(f'passage template {new.passage!r}: write {{title}} and {{text}} into it, or "{PAIR}"')
        if not _fills(new.question, question="\1"):
            raise InputError(f"question template {new.question!r}: write {{question}} into it")
        return new


PLAIN = TowerInputFormat()


class TowerTokens(NamedTuple):
    """Token ids as a tower reads them, and how many tokens of each input it does not."""

    ids: list[list[int]]
    lost: list[int]


@dataclass(frozen=True)
class QuestionTokenizer:
    """Questions as the question tower reads them. One that is too long for the tower is cut at its end."""

    tokenizer: Tokenizer
    template: str = QUESTION
    max_length: int | None = None

    def __call__(self, questions: Sequence[str]) -> TowerTokens:
        template = templates.cut(self.template, self.tokenizer)
        return _rows(self.tokenizer, [templates.fill(template, question=each) for each in questions], self.max_length)

    def decoded(self, questions: Sequence[str]) -> list[str]:
        """The questions as their tokens say them: in lower case, where the vocabulary is."""
        encodings = self.tokenizer.encode_batch(list(questions))
        return self.tokenizer.decode_batch([encoding.ids for encoding in encodings])


def passage_rows(
    tokenizer: Tokenizer, passages: Sequence[tuple[str, str]], template: str, max_length: int
) -> TowerTokens:
    """(title, text) pairs by a template, or as PAIR."""
    if template == PAIR:
        return _pairs(tokenizer, passages, max_length)
    titled, untitled = (templates.cut(each, tokenizer) for each in (template, without_title(template)))
    worded = (templates.fill(titled if title else untitled, title=title, text=text) for title, text in passages)
    return _rows(tokenizer, list(worded), max_length)


def text_rows(tokenizer: Tokenizer, texts: Sequence[str], max_length: int | None) -> TowerTokens:
    """Texts with the tokenizer's own special tokens; a long one is cut before its last special token."""
    return _rows(tokenizer, [[text] for text in texts], max_length)


def _rows(tokenizer: Tokenizer, filled: Sequence[templates.Pieces], max_length: int | None) -> TowerTokens:
    rows = templates.encode_whole(tokenizer, filled)
    if max_length is None:
        return TowerTokens(rows, [0] * len(rows))
    kept = [ids if len(ids) <= max_length else [*ids[: max_length - 1], ids[-1]] for ids in rows]
    return TowerTokens(kept, [len(ids) - len(cut) for ids, cut in zip(rows, kept, strict=True)])


def worded(template: str, title: str, text: str) -> str:
    """The template filled in; without a title, without what it has between title and text as well."""
    return (template if title else without_title(template)).format(title=title, text=text)


def without_title(template: str) -> str:
    """The template of passages without one: without what it has between title and text as well."""
    template, found = re.subn(r"\{title\}.*?(?=\{text\})", "", template, flags=re.DOTALL)
    return template if found else "{text}"


def literal(prompt: str) -> str:
    """A prompt as a template has it."""
    return prompt.replace("{", "{{").replace("}", "}}")


def _fills(template: str, **fields: str) -> bool:
    fill: Callable[..., str] = template.format
    try:
        return "\1" in fill(**fields)
    except (KeyError, IndexError, ValueError, AttributeError):
        return False


def _pairs(tokenizer: Tokenizer, passages: Sequence[tuple[str, str]], max_length: int) -> TowerTokens:
    """`[CLS] title [SEP] text [SEP]`; without a title the text alone, as DPR's own code has it.

    All tokens are of type 0, as there: DPR's towers were trained so, and transformers' example of RAG makes vectors so.
    """
    ends = tokenizer.encode("").ids
    if len(ends) != 2:
        raise InputError("a pair of title and text needs a tokenizer with [CLS] and [SEP]; give a template instead")
    if max_length < 5:
        raise InputError(f"{max_length} tokens have no room for a pair of title and text; give 5 or more")
    first, last = ends
    titles, texts = (
        [encoding.ids for encoding in tokenizer.encode_batch(list(each), add_special_tokens=False)]
        for each in (zip(*passages, strict=True) if passages else ((), ()))
    )
    ids, lost = [], []
    for (named, _), title, text in zip(passages, titles, texts, strict=True):
        a, b = shares(len(title), len(text), max_length - 3) if named else (0, min(len(text), max_length - 2))
        ids.append([first, *title[:a], *([last] if named else []), *text[:b], last])
        lost.append(len(title) + len(text) - a - b)
    return TowerTokens(ids, lost)


def shares(title: int, text: int, room: int) -> tuple[int, int]:
    """The tokens of both that fit into a room: the longer is cut, and both where each is longer than its half.

    This is transformers' `longest_first`, which DPR cuts by.
    """
    if title + text <= room:
        return title, text
    short = min(title, text, room // 2)
    return (short, room - short) if title <= text else (room - short, short)
