"""The `rag-jax` command."""

import importlib
import importlib.metadata
import os
import sys
from collections.abc import Sequence

from rag_jax.errors import InputError, report_errors


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a sub-command; an `InputError` is printed as one line, with exit code 2.

    Each sub-command is imported on use, so that usage and errors print at once and Ctrl-C works while it loads.
    """
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # that PyTorch is missing, which nothing here needs
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


COMMANDS = (  # modules of rag_jax.commands
    *("demo", "train", "mine", "index", "search", "answer", "evaluate", "refusals", "moderate", "compare"),
    *("experiment", "convert", "plan", "benchmark"),
)
USAGE = """usage: rag-jax COMMAND [OPTIONS]

  demo [NAME]       train and use a model: on the world's cities, or on the elements with pretrained networks
  train CONFIG      train and evaluate a model or a retriever, or tune a generator on instructions; or resume
  mine QUESTIONS    find hard negatives for training a retriever
  index             build, change or inspect an index
  search            search an index with any engine
  answer            answer questions with a trained model, and show the passages
  evaluate          score a model, a baseline or a file of predictions on questions in any of the field's formats
  refusals PROMPTS  measure refusals of unsafe prompts, and of safe ones
  moderate TEXTS    classify texts into categories by a model's label likelihoods, and apply their policies
  compare A B …     compare evaluations of the same questions, with tests of significance
  experiment NAME   rerun an experiment of the RAG paper: a table and a figure
  convert           export a workdir as a transformers RAG checkpoint, or import one
  plan              estimate memory and devices for an index of any size
  benchmark NAME    measure decode, encode, train, search, retrieval, retriever, store or smollm2

rag-jax COMMAND --help lists the options; rag-jax --version prints the version."""


if __name__ == "__main__":
    main()
