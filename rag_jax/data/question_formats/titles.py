"""Titles of Wikipedia's articles as they are shown, from the forms that data sets write them in."""

from urllib.parse import unquote

FEVER_ESCAPES = {"-LRB-": "(", "-RRB-": ")", "-LSB-": "[", "-RSB-": "]", "-LCB-": "{", "-RCB-": "}", "-COLON-": ":"}


def shown_title(title: str) -> str:
    """The title of an article, from that of its address (as in SQuAD) or its escaped form (as in FEVER).

    Titles of Wikipedia hold no underscores, and no percent sign before two hexadecimal digits.

    >>> shown_title("Saint_Barth%C3%A9lemy"), shown_title("Emma_-LRB-novel-RRB-")
    ('Saint Barthélemy', 'Emma (novel)')
    """
    for escape, character in FEVER_ESCAPES.items():
        title = title.replace(escape, character)
    return unquote(title).replace("_", " ")
