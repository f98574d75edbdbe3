"""The terminal: a console on which texts from files are only ever text.

Passages, questions, answers and names come from anywhere. Here they move no cursor, change no colour or direction of
writing, and hold no markup.
"""

from typing import Any

from rich.console import Console
from rich.text import Text

from rag_jax.errors import printable


class Terminal(Console):
    """rich's console without markup, emoji codes and highlighting; escapes what would control the terminal."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """The text of a line or of a table's cell."""
        return super().render_str(printable(text), **options)


def styled(text: str, style: str) -> Text:
    """A text in a style, as `bold`; what would control the terminal is escaped."""
    return Text(printable(text), style)
