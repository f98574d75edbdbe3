"""Regular expressions as answers, as those of CuratedTREC."""

import functools
import re
import unicodedata
import warnings
from typing import Literal, NamedTuple

from rag_jax.errors import InputError

_CLASS = re.compile(r"(?<!\\)(?:\\\\)*\[")  # a set of characters


class AnswerPattern(NamedTuple):
    """A compiled regular expression, and the Unicode form in which it reads texts."""

    compiled: re.Pattern[str]
    form: Literal["NFC", "NFD"]

    def matches_all(self, text: str) -> bool:
        """Whether it matches all of a text, without the white space around it."""
        return self.compiled.fullmatch(unicodedata.normalize(self.form, text).strip()) is not None

    def is_in(self, text: str) -> bool:
        """Whether it matches anywhere in a text."""
        return self.compiled.search(unicodedata.normalize(self.form, text)) is not None


@functools.lru_cache(4096)
def compile_answer(pattern: str) -> AnswerPattern:
    """Compile with DPR's flags: case is ignored, `^` and `$` match at line ends. As in DPR text and pattern are in NFD.

    A set as `[éè]` is read in NFC: in NFD each accent would be a member by itself. DPR uses the package `regex`, which
    knows more syntax than `re`. Raises `InputError` for an invalid pattern, and for one that matches the empty text.
    """
    form = "NFC" if not pattern.isascii() and _CLASS.search(pattern) else "NFD"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of syntax that a later Python may read differently
            compiled = re.compile(unicodedata.normalize(form, pattern), re.IGNORECASE | re.MULTILINE)
    except (re.error, ValueError, OverflowError, RecursionError) as error:
        raise InputError(f"{pattern!r}: not a regular expression ({error}); correct the answer") from None
    if compiled.search(""):
        raise InputError(f"{pattern!r}: as a regular expression it matches every text; correct the answer")
    return AnswerPattern(compiled, form)
