"""The `rag-jax` command."""

import importlib
import importlib.metadata
import sys
from collections.abc import Sequence

from rag_jax.errors import InputError, report_errors


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a sub-command; an `InputError` is printed as one line, with exit code 2.

    Each is imported when it is asked for: usage and mistakes are told at once, and Ctrl-C is heard while it loads.
    """
    command, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    with report_errors():
        if command in ("-h", "--help"):
            print(USAGE)
        elif command == "--version":
            print(f"rag-jax {importlib.metadata.version('rag-jax')}")
        elif command in COMMANDS:
            getattr(importlib.import_module(f"rag_jax.commands.{command}"), command)(rest)
        else:
            raise InputError(f"no command {command!r}; the commands are {', '.join(COMMANDS)}")


COMMANDS = ("train", "index", "search", "answer", "convert", "plan", "benchmark")  # modules of rag_jax.commands
USAGE = """usage: rag-jax COMMAND [OPTIONS]

  train CONFIG      train and evaluate a model, or resume
  index             a corpus to a knowledge store; change one, look at one
  search            search a knowledge store, by any engine
  answer            answer questions with a trained model, and show the passages
  convert           a workdir to a checkpoint of transformers' RAG, or back
  plan              what an index of any size takes on which devices
  benchmark NAME    decode, encode, train, search: timed beside other libraries; retrieval, store: measured

rag-jax COMMAND --help lists the options; rag-jax --version says which one this is."""


if __name__ == "__main__":
    main()
