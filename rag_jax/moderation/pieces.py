"""Long texts in pieces that a model can read: the end of a text is moderated too."""

from collections.abc import Callable

OVERLAP = 8  # words that two pieces share at most, so that what belongs together stands in one of them


def split(text: str, fits: Callable[[str], bool]) -> list[str]:
    """The text, halved between words until each piece fits; neighbours overlap. A long word is cut between characters.

    `fits` must hold for every single character.
    """
    if fits(text) or len(text) < 2:
        return [text]
    words = text.split()
    if len(words) < 2:
        middle = len(text) // 2
        halves = text[:middle], text[middle:]
    else:
        middle, shared = len(words) // 2, min(OVERLAP // 2, len(words) // 4)
        halves = " ".join(words[: middle + shared]), " ".join(words[middle - shared :])
    return [piece for half in halves for piece in split(half, fits)]
