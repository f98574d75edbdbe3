"""Templates with fields: special tokens in a template are special, those in the field values are text.

    template = split_at_special_tokens("{title} [SEP] {text}", tokenizer)
    fill(template, title="Foo [SEP]", text="bar") == ["Foo [SEP] ", 102, " bar"]

The pieces are tokenised one by one, as the `tokenizers` library tokenises the text between special tokens. Fields are
words in braces, replaced by their values and nothing else: all other braces are text.
"""

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

from tokenizers import Encoding, Tokenizer

from rag_jax.errors import InputError

FIELDS = ("title", "text", "question", "passage")
_FIELD = re.compile(r"\{(\w+)\}")
Pieces = list[str | int]
"""Texts alternating with the ids of special tokens; the first and the last piece are texts."""
PLAIN: Pieces = ["{text}"]


def split_at_special_tokens(template: str, tokenizer: Tokenizer) -> Pieces:
    """Split a template at the special tokens in it."""
    special = {token.content: (i, token) for i, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    if not special:
        return [template]
    longest_first = sorted(special, key=len, reverse=True)
    pieces: Pieces = [*re.split(f"({'|'.join(map(re.escape, longest_first))})", template)]
    for index in range(1, len(pieces), 2):
        before, content, after = map(str, pieces[index - 1 : index + 2])
        i, token = special[content]
        before, after = before.rstrip() if token.lstrip else before, after.lstrip() if token.rstrip else after
        pieces[index - 1 : index + 2] = [before, i, after]
    return pieces


def fill(template: Pieces, **fields: str) -> Pieces:
    """Fill in the fields of a template."""
    return [piece if isinstance(piece, int) else fill_text(piece, **fields) for piece in template]


def fill_text(template: str, **fields: str) -> str:
    """Replace `{name}` by the value of each field; a value is text, whatever it holds."""
    return _FIELD.sub(lambda found: fields.get(found[1], found[0]), template)


def fields_of(template: str) -> list[str]:
    """The fields in a template, in order."""
    return [name for name in _FIELD.findall(template) if name in FIELDS]


def plain_text(text: str, source: str) -> str:
    """Return a text that is to be part of a template. Raises `InputError` where it would be read as a field."""
    if found := fields_of(text):
        raise InputError(f"{source} holds {{{found[0]}}}, which is a field of templates; change it in a copy")
    return text


def fill_single_spaced(template: Pieces, following: str = "", **fields: str) -> Pieces:
    """Fill in the fields and replace double spaces by single ones, also at the border to the `following` text."""
    *pieces, last = fill(template, **fields)
    single = [piece if isinstance(piece, int) else piece.replace("  ", " ") for piece in pieces]
    return [*single, f"{last}{following}".replace("  ", " ").removesuffix(following)]


def encode(tokenizer: Tokenizer, rows: Sequence[Pieces], goes_on: bool = False) -> list[list[int]]:
    """Token ids of filled templates, without the special tokens that the tokenizer adds around a text.

    `goes_on`: text stands before them, see `encode_texts`.
    """
    anew = begins_anew(tokenizer)
    texts = [
        (piece, goes_on if number == 0 else not anew)
        for row in rows
        for number, piece in enumerate(row)
        if isinstance(piece, str)
    ]
    encoded = iter(encode_texts(tokenizer, texts))
    ids = ([[piece] if isinstance(piece, int) else next(encoded).ids for piece in row] for row in rows)
    return [list(chain.from_iterable(each)) for each in ids]


def encode_texts(tokenizer: Tokenizer, texts: Sequence[tuple[str, bool]]) -> list[Encoding]:
    """Encode texts, each with whether it goes on behind other tokens: SentencePiece begins a text alone by a space."""
    behind = going_on(tokenizer)
    if behind is tokenizer:
        return tokenizer.encode_batch([text for text, _ in texts], add_special_tokens=False)
    by_place = {
        goes_on: iter(each.encode_batch([text for text, at in texts if at == goes_on], add_special_tokens=False))
        for goes_on, each in ((False, tokenizer), (True, behind))
    }
    return [next(by_place[goes_on]) for _, goes_on in texts]


@lru_cache(8)
def going_on(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer for texts that do not begin their input: the same one, or without the space of SentencePiece.

    That space is a pre-tokenizer's, or in older files a normalizer's.
    """
    stated = {"normalizer": _stated(tokenizer.normalizer), "pre_tokenizer": _stated(tokenizer.pre_tokenizer)}
    behind = {name: _without_first_space(part) for name, part in stated.items()}
    if behind == stated:
        return tokenizer
    changed = Tokenizer.from_str(json.dumps(json.loads(tokenizer.to_str()) | behind))
    changed.encode_special_tokens = tokenizer.encode_special_tokens  # which no tokenizer.json states
    return changed


def _stated(part: Any) -> dict[str, Any] | None:
    """A normalizer or a pre-tokenizer as a tokenizer.json has it; the vocabulary is not written for it."""
    return None if part is None else json.loads(part.__getstate__())


def _without_first_space(part: dict[str, Any] | None) -> dict[str, Any] | None:
    if part is None or part["type"] == "Prepend":
        return None
    if part["type"] == "Metaspace" and part.get("prepend_scheme") == "first":
        return part | {"prepend_scheme": "never"}
    inside = next((name for name in ("normalizers", "pretokenizers") if name in part), None)
    if inside is None:
        return part
    return part | {inside: [each for each in map(_without_first_space, part[inside]) if each is not None]}


@lru_cache(8)
def begins_anew(tokenizer: Tokenizer) -> bool:
    """Whether a text begins by a space behind special tokens too: a normalizer's, which sees each text by itself."""
    stated = _stated(tokenizer.normalizer)
    return _without_first_space(stated) != stated


def encode_with_special_tokens(tokenizer: Tokenizer, rows: Sequence[Pieces]) -> list[list[int]]:
    """Token ids of filled templates, with the special tokens that the tokenizer adds around a text."""
    texts = [piece for row in rows for piece in row if isinstance(piece, str)]
    if all(len(row) == 1 for row in rows):
        return [encoding.ids for encoding in tokenizer.encode_batch(texts)]
    before, after = surrounding_special_tokens(tokenizer)
    return [[*before, *ids, *after] for ids in encode(tokenizer, rows)]


def surrounding_special_tokens(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """The special tokens that a tokenizer adds before and after a text."""
    one = tokenizer.encode("a")
    text = [position for position, special in enumerate(one.special_tokens_mask) if not special]
    return one.ids[: text[0]], one.ids[text[-1] + 1 :]
