"""What a console of the commands prints is the text that it was given, whatever is in it."""

import io

from rich.table import Table

from rag_jax.terminal import Terminal, styled

HOSTILE = "[red]a[/red] [link=https://example.org]b[/link] :smile: \x1b[2J\x9b1m \u202ec"
SHOWN = r"[red]a[/red] [link=https://example.org]b[/link] :smile: \x1b[2J\x9b1m \u202ec"


def printed(*things: object, **options) -> str:
    out = io.StringIO()
    Terminal(file=out, width=120, **options).print(*things)
    return out.getvalue()


def test_texts_cells_and_headings_are_plain() -> None:
    table = Table(HOSTILE, box=None, pad_edge=False)
    table.add_row(HOSTILE)
    assert printed(HOSTILE) == f"{SHOWN}\n"
    assert [line.rstrip() for line in printed(table).splitlines()] == [SHOWN, SHOWN]
    assert printed(styled(HOSTILE, "bold")) == f"{SHOWN}\n"


def test_only_styles_of_the_library_reach_a_terminal() -> None:
    shown = printed(styled(HOSTILE, "bold"), force_terminal=True, color_system="standard")
    assert shown == f"\x1b[1m{SHOWN}\x1b[0m\n"
    assert printed(HOSTILE, force_terminal=True, color_system="standard") == f"{SHOWN}\n"
