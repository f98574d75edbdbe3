"""Token ids of passages and questions for a tower, in its checkpoint's own input format or by a template.

DPR's passage tower reads a pair, `[CLS] title [SEP] text [SEP]`; sentence-transformers models have prompts before the
text and a maximum length. Vectors of different input formats are not comparable.
"""

import re
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import NamedTuple

from tokenizers import Tokenizer

from rag_jax.data import templates
from rag_jax.data.tokenizers import truncate
from rag_jax.errors import InputError

PAIR = "pair"  # given instead of a passage template
TITLE_AND_TEXT = "{title}. {text}"  # for towers whose checkpoint does not specify a format
QUESTION = "{question}"


class TowerInputFormat(NamedTuple):
    """The input format of a tower; the defaults are for a BERT whose checkpoint does not specify one."""

    passage: str = TITLE_AND_TEXT  # a template, or PAIR
    question: str = QUESTION
    max_length: int | None = None  # tokens of an input, with special tokens; None: the tower's number of positions

    def override(self, passage: str | None, question: str | None) -> "TowerInputFormat":
        """Replace the templates that are not None. Raises `InputError` for a template without its fields."""
        changes = {"passage": passage, "question": question}
        new = self._replace(**{name: each for name, each in changes.items() if each is not None})
        if new.passage != PAIR and not _has_fields(new.passage, {"title", "text"}):
            raise InputError(f'passage template {new.passage!r}: write {{title}} and {{text}} into it, or "{PAIR}"')
        if not _has_fields(new.question, {"question"}):
            raise InputError(f"question template {new.question!r}: write {{question}} into it")
        return new


PLAIN = TowerInputFormat()


class TowerTokens(NamedTuple):
    """Token ids as a tower reads them, and the number of tokens of each input that were truncated."""

    ids: list[list[int]]
    num_truncated: list[int]


@dataclass(frozen=True)
class QuestionTokenizer:
    """Tokenises questions for the question tower. A question longer than `max_length` is truncated."""

    tokenizer: Tokenizer
    template: str = QUESTION
    max_length: int | None = None

    def __call__(self, questions: Sequence[str]) -> TowerTokens:
        template = templates.split_at_special_tokens(self.template, self.tokenizer)
        return _encode(self.tokenizer, [templates.fill(template, question=each) for each in questions], self.max_length)

    @property
    def num_end_tokens(self) -> int:
        """The special tokens at the end, which truncation keeps."""
        return _num_end_tokens(self.tokenizer)

    def decode_tokens(self, questions: Sequence[str]) -> list[str]:
        """Tokenise and decode the questions: lower-cased, for instance, if the vocabulary is."""
        encodings = self.tokenizer.encode_batch(list(questions))
        return self.tokenizer.decode_batch([encoding.ids for encoding in encodings])


def tokenize_passages(
    tokenizer: Tokenizer, passages: Sequence[tuple[str, str]], template: str, max_length: int
) -> TowerTokens:
    """Tokenise (title, text) pairs by a template, or as PAIR."""
    if template == PAIR:
        return _encode_pairs(tokenizer, passages, max_length)
    titled, untitled = (templates.split_at_special_tokens(each, tokenizer) for each in (template, drop_title(template)))
    rows = [templates.fill(titled if title else untitled, title=title, text=text) for title, text in passages]
    return _encode(tokenizer, rows, max_length)


def tokenize_texts(tokenizer: Tokenizer, texts: Sequence[str], max_length: int | None) -> TowerTokens:
    """Tokenise texts with the tokenizer's own special tokens; a long one is truncated before its last special token."""
    return _encode(tokenizer, [[text] for text in texts], max_length)


def _encode(tokenizer: Tokenizer, inputs: Sequence[templates.Pieces], max_length: int | None) -> TowerTokens:
    rows = templates.encode_with_special_tokens(tokenizer, inputs)
    if max_length is None:
        return TowerTokens(rows, [0] * len(rows))
    end = _num_end_tokens(tokenizer)
    truncated = [truncate(ids, max_length, end) for ids in rows]
    return TowerTokens(truncated, [len(ids) - len(short) for ids, short in zip(rows, truncated, strict=True)])


def _num_end_tokens(tokenizer: Tokenizer) -> int:
    return len(templates.surrounding_special_tokens(tokenizer)[1])


def fill_template(template: str, title: str, text: str) -> str:
    """Fill in a template; without a title, as `drop_title` changes it."""
    return templates.fill_text(template if title else drop_title(template), title=title, text=text)


def drop_title(template: str) -> str:
    """The template for passages without a title: what stands between title and text, or behind the text, goes too."""
    if "{title}" not in template:
        return template
    dropped, found = re.subn(r"\{title\}.*?(?=\{text\})", "", template, flags=re.DOTALL)
    if found:
        return dropped
    before, text, _ = template.partition("{text}")
    return f"{before}{text}" if text else "{text}"


def _has_fields(template: str, known: Set[str]) -> bool:
    """Whether a template has one of these fields, and no other."""
    fields = templates.fields_of(template)
    return bool(fields) and known >= {*fields}


def _encode_pairs(tokenizer: Tokenizer, passages: Sequence[tuple[str, str]], max_length: int) -> TowerTokens:
    """`[CLS] title [SEP] text [SEP]`, or `[CLS] text [SEP]` without a title, as in DPR's code.

    All tokens have type 0: DPR's towers were trained so, and the RAG example of transformers encodes passages so.
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
    ids, num_truncated = [], []
    for (has_title, _), title, text in zip(passages, titles, texts, strict=True):
        a, b = (
            longest_first(len(title), len(text), max_length - 3) if has_title else (0, min(len(text), max_length - 2))
        )
        ids.append([first, *title[:a], *([last] if has_title else []), *text[:b], last])
        num_truncated.append(len(title) + len(text) - a - b)
    return TowerTokens(ids, num_truncated)


def longest_first(title: int, text: int, max_length: int) -> tuple[int, int]:
    """The lengths of title and text after truncation to `max_length` in total, always shortening the longer one.

    This is the strategy `longest_first` of transformers, which DPR uses.
    """
    if title + text <= max_length:
        return title, text
    short = min(title, text, max_length // 2)
    return (short, max_length - short) if title <= text else (max_length - short, short)
