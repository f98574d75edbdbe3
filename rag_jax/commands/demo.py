"""`rag-jax demo`: the demos by name, the world's cities by default."""

from collections.abc import Sequence

from rag_jax.commands.demo_cities import CitiesDemo
from rag_jax.commands.demo_elements import ElementsDemo
from rag_jax.config.command_line import parse
from rag_jax.errors import InputError

DEMOS = {"cities": CitiesDemo, "elements": ElementsDemo}
DEFAULT = "cities"


def demo(arguments: Sequence[str]) -> None:
    """`rag-jax demo [cities|elements] [--workdir DIR]`. Raises `InputError` for a demo that does not exist."""
    named = bool(arguments) and not arguments[0].startswith("-")
    name, rest = (arguments[0], arguments[1:]) if named else (DEFAULT, arguments)
    if name not in DEMOS:
        raise InputError(f"no demo {name!r}; the demos are {', '.join(DEMOS)}")
    command = f"rag-jax demo {name}" if named else "rag-jax demo"
    parse(DEMOS[name], rest, remedy=f"{command} --help lists all options", prog=command).run()
