"""Long texts in pieces that a model can read: what stands at the end of a text is moderated too."""

from collections.abc import Callable


def split(text: str, fits: Callable[[str], bool]) -> list[str]:
    """The text, cut in halves at white space until each piece fits; without white space, between two characters.

    `fits` must hold for every single character.
    """
    if fits(text) or len(text) < 2:
        return [text]
    at = _middle(text)
    return [piece for half in (text[:at].strip(), text[at:].strip()) if half for piece in split(half, fits)]


def _middle(text: str) -> int:
    """Where to cut: at the white space that is nearest to the middle."""
    middle = len(text) // 2
    spaces = [at for at, character in enumerate(text) if character.isspace() and 0 < at < len(text) - 1]
    return min(spaces, key=lambda at: abs(at - middle), default=middle)
