"""Command-line overrides of a config: `--dotted.name VALUE`."""

from collections.abc import Sequence

from rag_jax.config import keys
from rag_jax.config.command_line import parse
from rag_jax.config.files import Kind
from rag_jax.errors import InputError


def override(config: Kind, arguments: Sequence[str], name: str = "CONFIG") -> Kind:
    """The config with `--dotted.name VALUE` applied; `--help` prints every key with its value and exits.

    `name` is what the user calls the config. Raises `InputError` for an unknown key, with the nearest known one, and
    for a value of another type.
    """
    command = f"rag-jax train {name}"
    known = {each.replace("_", "-") for each in keys.names(type(config))}
    for argument in arguments:
        key = argument.partition("=")[0].removeprefix("--").replace("_", "-")
        if argument.startswith("--") and not _is_known(key, known):
            nearest = f"--{keys.nearest(key, known)}{keys.remark(key)}"
            raise InputError(f"unknown config key --{key}; the nearest is {nearest}")
    return parse(type(config), arguments, remedy=f"{command} --help lists all keys", default=config, prog=command)


def _is_known(key: str, known: set[str]) -> bool:
    """Whether this is `help`, a key, or the negation of a boolean: `--compute.no-scan`."""
    prefix, _, leaf = key.rpartition(".")
    return key == "help" or key in known or ".".join(filter(None, (prefix, leaf.removeprefix("no-")))) in known
