"""The files and configs of the demos, in their workdirs.

A demo writes its data and figures into folders of their own, and replaces no file there that it has not written.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

from rag_jax.config.catalog import find_config
from rag_jax.config.config import Config
from rag_jax.config.files import read_config_file, relocate
from rag_jax.corpus import read_passages
from rag_jax.data.own_folder import OwnFolder
from rag_jax.data.questions import read_questions
from rag_jax.data.tokenizers import train_generator_tokenizer
from rag_jax.demo.questions import write_corpus

DEFAULT_WORKDIR, ELEMENTS_WORKDIR = Path("runs/demo"), Path("runs/elements")
"""The folders that the configs name."""
CORPUS, TOKENIZER = ("passages.jsonl", "dev.jsonl", "test.jsonl", "train.jsonl"), "tokenizer.json"
"""The files of a demo's data; the tokenizer is the cities'."""


def own_folder(workdir: Path, name: str, demo: str) -> OwnFolder:
    """A folder of a demo in its workdir, of its data or its figures."""
    return OwnFolder(
        workdir / name, f"rag-jax.demo-{demo}", f"{name} of this demo", "choose another --workdir", workdir
    )


def write_own(folder: OwnFolder, names: Iterable[str], write: Callable[[Path], None]) -> None:
    """Write the files of these names into a demo's own folder, unless all are there. Raises as `OwnFolder.check`.

    Args:
        write: writes them into the folder that it is given.
    """
    names = tuple(names)
    folder.check(names)
    if all((folder.path / name).exists() for name in names):
        return
    with TemporaryDirectory() as made:
        write(Path(made))
        folder.claim()
        folder.write({name: (Path(made) / name).read_bytes() for name in names})


def write_data(folder: Path) -> None:
    """Write the cities' passages, questions and the generator's tokenizer into a folder.

    Files of these names are replaced: the folder must be the caller's own.
    """
    write_corpus(folder)
    passages = [f"{passage.title} / {passage.text}" for passage in read_passages(folder / "passages.jsonl")]
    questions = [f" {question.question}" for question in read_questions(folder / "train.jsonl")]
    vocab_size = read_config_file(find_config("cities")).generator.vocabulary
    train_generator_tokenizer(passages + questions, vocab_size).tokenizer.save(str(folder / TOKENIZER))


def demo_config(name: str, workdir: Path, default: Path = DEFAULT_WORKDIR) -> Config:
    """One of the demos' configs, with all of its paths, which are below `default`, below `workdir` instead."""
    return relocate(read_config_file(find_config(name)), default, workdir)
