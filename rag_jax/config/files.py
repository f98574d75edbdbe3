"""Config files: the Python that a user writes, and the JSON that a run leaves in its workdir."""

import contextlib
import dataclasses
import math
import runpy
import sys
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from rag_jax.config.config import Config
from rag_jax.config.contrastive import ContrastiveConfig
from rag_jax.config.instruction import InstructionConfig
from rag_jax.data import strict_json, validation
from rag_jax.data.files import write_atomically
from rag_jax.errors import InputError

AnyConfig = Config | ContrastiveConfig | InstructionConfig
Kind = TypeVar("Kind", bound=AnyConfig)
TRAINS: dict[type[AnyConfig], str] = {
    Config: "a RAG model",
    ContrastiveConfig: "a bi-encoder",
    InstructionConfig: "a generator on instructions",
}
MARKS = {"contrastive": ContrastiveConfig, "length_groups": InstructionConfig}  # keys that only one kind of config has


def read_config_file(path: Path) -> Config:
    """The config of a RAG model that a Python file defines.

    Raises as `read_any_config_file`, and for the config of another kind of run.
    """
    found = read_any_config_file(path)
    if not isinstance(found, Config):
        raise InputError(f"{path}: trains {TRAINS[type(found)]}, not {TRAINS[Config]}; name another config")
    return found


def read_any_config_file(path: Path) -> AnyConfig:
    """The `config` that a Python file defines. The file may import modules beside it.

    Raises `InputError` for a file that is missing or that fails, and for values of the wrong type.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such config file; check the path")
    try:
        with _importable(path.resolve().parent):
            found = runpy.run_path(str(path)).get("config")
    except InputError as error:
        raise InputError(f"{path}:{_line(error, path)}: {_one_line(error)}") from None
    except (Exception, SystemExit) as error:
        raise InputError(f"{path}:{_line(error, path)}: {type(error).__name__}: {_one_line(error)}") from error
    if not isinstance(found, AnyConfig):
        kinds = " or ".join(f"`config = {kind.__name__}(...)`" for kind in TRAINS)
        raise InputError(f"{path}: defines no config; end it with {kinds}")
    return validation.validate_dataclass(type(found), found, f"{path}: ")


def load_config(path: Path) -> Config:
    """The config that a training run of a RAG model saved. Raises as `load_config_of`."""
    return load_config_of(Config, path)


def load_config_of(kind: type[Kind], path: Path) -> Kind:
    """The config that a run saved. Raises `InputError` for a file that is missing, damaged, or of another kind."""
    try:
        values = strict_json.loads(path.read_bytes(), paths=True)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path}: no such file; give a workdir of rag-jax train") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give a workdir of rag-jax train") from None
    except ValueError as error:
        location = strict_json.location(path, error)
        raise InputError(f"{location}: damaged; copy the config of the run again") from None
    _check_kind(kind, values, path)
    return validation.validate_dataclass(kind, values, f"{path}: ")


def save_config(config: AnyConfig, path: Path) -> None:
    """Write the resolved config as JSON. Paths are texts there, and so is infinity: "inf"."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: plain(each) for name, each in value.items()}
        if isinstance(value, tuple):
            return [plain(each) for each in value]
        return str(value) if isinstance(value, Path) or value == math.inf else value

    write_atomically(path, strict_json.dumps(plain(dataclasses.asdict(config)), indent=2) + "\n")


def relocate(config: Config, old: Path, new: Path) -> Config:
    """The config with every path below `old` moved below `new`."""

    def move(value: Any) -> Any:
        if dataclasses.is_dataclass(value):
            fields = {each.name: move(getattr(value, each.name)) for each in dataclasses.fields(value)}
            return type(value)(**fields)
        inside = isinstance(value, Path) and value.is_relative_to(old)
        return new / value.relative_to(old) if inside else value

    return move(config)


def _check_kind(kind: type[AnyConfig], values: Any, path: Path) -> None:
    """Raise `InputError` for the config of another kind of run, by the key that only it has."""
    if not isinstance(values, dict):
        return
    found = next((each for mark, each in MARKS.items() if mark in values), Config)
    if found is kind:
        return
    if kind is not Config:
        raise InputError(f"{path}: trains {TRAINS[found]}, not {TRAINS[kind]}; choose another --workdir")
    if found is ContrastiveConfig:
        raise InputError(
            f"{path}: the run of a bi-encoder, which answers no questions; name its towers: {path.parent / 'towers'}"
        )
    raise InputError(
        f"{path}: the run of a generator without a retriever; name its folder: {path.parent / 'generator'}"
    )


@contextlib.contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let a config import the modules of its own folder; afterwards forget them, as another folder may have others."""
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            if _is_of(folder, name):
                del sys.modules[name]


def _is_of(folder: Path, name: str) -> bool:
    """Whether a module is a file of the folder, or in a package there; a virtual environment there is neither."""
    top, module = name.partition(".")[0], sys.modules[name]
    found = [file] if (file := getattr(module, "__file__", None)) else list(getattr(module, "__path__", ()))
    return any(Path(file) == folder / f"{top}.py" or Path(file).is_relative_to(folder / top) for file in found)


def _line(error: BaseException, path: Path) -> int:
    """The line of a config file at which it failed."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return error.lineno or 1
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return (lines or [1])[-1] or 1


def _one_line(error: BaseException) -> str:
    try:
        return " ".join(str(error).split())
    except Exception:  # the class is the user's too
        return "its message cannot be read"
