"""Templates with fields: what they spell of a tokenizer's special tokens is special, what fills them in is text.

    filled(cut("{title} [SEP] {text}", tokenizer), title="Foo [SEP]", text="bar") == ["Foo [SEP] ", 102, " bar"]

They are tokenised piece by piece, as the `tokenizers` library does between special tokens.
"""

import re
from collections.abc import Sequence
from itertools import chain

from tokenizers import Tokenizer

Pieces = list[str | int]
"""Texts, and the ids of special tokens between them; a text is first, and last."""
PLAIN: Pieces = ["{text}"]


def cut(template: str, tokenizer: Tokenizer) -> Pieces:
    """The template, cut at the special tokens that it spells."""
    special = {token.content: (i, token) for i, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    if not special:
        return [template]
    longest_first = sorted(special, key=len, reverse=True)
    pieces: Pieces = [*re.split(f"({'|'.join(map(re.escape, longest_first))})", template)]
    for place in range(1, len(pieces), 2):
        before, spelt, behind = map(str, pieces[place - 1 : place + 2])
        i, token = special[spelt]
        before, behind = before.rstrip() if token.lstrip else before, behind.lstrip() if token.rstrip else behind
        pieces[place - 1 : place + 2] = [before, i, behind]
    return pieces


def fill(template: Pieces, **fields: str) -> Pieces:
    """The template's fields filled in."""
    return [piece if isinstance(piece, int) else piece.format(**fields) for piece in template]


def filled(template: Pieces, before: str = "", **fields: str) -> Pieces:
    """The template's fields filled in; single spaces for double ones, also where it stands `before` more."""
    *pieces, last = fill(template, **fields)
    single = [piece if isinstance(piece, int) else piece.replace("  ", " ") for piece in pieces]
    return [*single, f"{last}{before}".replace("  ", " ").removesuffix(before)]


def encode(tokenizer: Tokenizer, rows: Sequence[Pieces]) -> list[list[int]]:
    """Token ids of filled templates; the tokenizer adds nothing at their ends."""
    texts = [piece for row in rows for piece in row if isinstance(piece, str)]
    encoded = iter(tokenizer.encode_batch(texts, add_special_tokens=False))
    ids = ([[piece] if isinstance(piece, int) else next(encoded).ids for piece in row] for row in rows)
    return [list(chain.from_iterable(each)) for each in ids]


def encode_whole(tokenizer: Tokenizer, rows: Sequence[Pieces]) -> list[list[int]]:
    """Token ids of filled templates, between the special tokens that the tokenizer sets around every text."""
    texts = [piece for row in rows for piece in row if isinstance(piece, str)]
    if all(len(row) == 1 for row in rows):
        return [encoding.ids for encoding in tokenizer.encode_batch(texts)]
    before, behind = _ends(tokenizer)
    return [[*before, *ids, *behind] for ids in encode(tokenizer, rows)]


def _ends(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    one = tokenizer.encode("a")
    text = [place for place, special in enumerate(one.special_tokens_mask) if not special]
    return one.ids[: text[0]], one.ids[text[-1] + 1 :]
