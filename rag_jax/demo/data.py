"""The files and configs of the demos, in their workdirs."""

from pathlib import Path

from rag_jax.config.catalog import find_config
from rag_jax.config.config import Config
from rag_jax.config.files import read_config_file, relocate
from rag_jax.corpus import read_passages
from rag_jax.data.questions import read_questions
from rag_jax.data.tokenizers import train_generator_tokenizer
from rag_jax.demo import element_questions
from rag_jax.demo.questions import write_corpus

DEFAULT_WORKDIR, ELEMENTS_WORKDIR = Path("runs/demo"), Path("runs/elements")
"""The folders that the configs name."""


def write_data(folder: Path) -> None:
    """Write the cities' passages, questions and the generator's tokenizer into a folder, unless they are there."""
    if (folder / "tokenizer.json").exists():
        return
    write_corpus(folder)
    passages = [f"{passage.title} / {passage.text}" for passage in read_passages(folder / "passages.jsonl")]
    questions = [f" {question.question}" for question in read_questions(folder / "train.jsonl")]
    vocab_size = read_config_file(find_config("cities")).generator.vocabulary
    train_generator_tokenizer(passages + questions, vocab_size).tokenizer.save(str(folder / "tokenizer.json"))


def write_elements(folder: Path) -> None:
    """Write the elements' passages and questions into a folder, unless they are there."""
    if not (folder / element_questions.LAST).exists():
        element_questions.write_corpus(folder)


def demo_config(name: str, workdir: Path, default: Path = DEFAULT_WORKDIR) -> Config:
    """One of the demos' configs, with all of its paths, which are below `default`, below `workdir` instead."""
    return relocate(read_config_file(find_config(name)), default, workdir)
