"""The configs that come with the library, by name: `cities`, `paper/nq_token`, …"""

import difflib
import re
from pathlib import Path

from rag_jax.errors import InputError

_PACKAGE = Path(__file__).parents[1]
_DEFINES_CONFIG = re.compile(r"^config = ", re.MULTILINE)


def folder() -> Path:
    """Where these configs are: in the installed package, or at the root of a checkout."""
    installed = _PACKAGE / "configs"
    return installed if installed.is_dir() else _PACKAGE.parent / "configs"


def config_names() -> list[str]:
    """The names, sorted: paths below the folder without their suffix."""
    files = (path for path in folder().rglob("*.py") if _DEFINES_CONFIG.search(path.read_text(encoding="utf-8")))
    return sorted(path.relative_to(folder()).with_suffix("").as_posix() for path in files)


def find_config(name: str) -> Path:
    """The file of a config: that of a known name, or the path of a Python file. Raises `InputError` for neither."""
    if Path(name).suffix == ".py" and Path(name).is_file():
        return Path(name)
    known = config_names()
    if name in known:
        return folder() / f"{name}.py"
    close = difflib.get_close_matches(name.removeprefix("configs/").removesuffix(".py"), known, n=1, cutoff=0.0)
    nearest = f"the nearest is {close[0]}; " if close else ""
    raise InputError(f"{name}: no such config; {nearest}give the path of a .py file, or one of {', '.join(known)}")
