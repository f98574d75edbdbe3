"""`rag-jax index` as it is typed, on a few towns: what it prints, and how it refuses."""

from pathlib import Path

import pytest

from rag_jax.cli import main
from rag_jax.config.config import Config

SMALL = ("--max-length", "16", "--template", "{title}", "--norm", "4")
TOWNS = [
    {"id": f"t{i}", "title": town, "text": f"{town} is painted red ."} for i, town in enumerate(("Norburg", "Sudhof"))
]


def run(capsys, *arguments: object) -> str:
    """What a command prints."""
    main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    return said.out + said.err


def built(capsys, towns: Config, folder: Path) -> Path:
    """A folder with the index of all towns, in three segments."""
    command = ("--out", folder, "--tower", towns.retriever.tower, *SMALL, "--segment", "100")
    run(capsys, "index", towns.data.passages, *command)
    return folder


def refused(capsys, *arguments: object) -> str:
    """The one line of a command that fails."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
    return line
