"""The core and the networks stay pure: what they import and call is read from their source."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import rag_jax

PACKAGE = Path(rag_jax.__file__).parent
STANDARD = {"typing", "functools", "collections", "dataclasses"}
CORE = frozenset({"jax", "numpy", "optax", "jaxtyping", "rag_jax.types", "rag_jax.core"} | STANDARD)
MODELS = CORE | {"flax", "rag_jax.models"}
SHELL = [
    "data",
    "corpus",
    "hub",
    "index",
    "config",
    "parallel",
    "pipeline",
    "rag",
    "evaluation",
    "training",
    "commands",
    "errors",
]
EFFECTS = {"print", "open", "input", "exec", "eval", "__import__", "time"}

LAYERS = [
    *((path, CORE) for path in [PACKAGE / "types.py", *sorted((PACKAGE / "core").rglob("*.py"))]),
    *((path, MODELS) for path in sorted((PACKAGE / "models").rglob("*.py"))),
]


def imported(tree: ast.AST) -> Iterator[str]:
    """Every imported module or member by its full name; relative imports begin with a dot."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ("." * node.level + f"{node.module or ''}.{alias.name}" for alias in node.names)


def called(tree: ast.AST) -> Iterator[str]:
    """The last name of everything called: `print` for `print()` and for `jax.debug.print()`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield getattr(node.func, "id", getattr(node.func, "attr", ""))


def violations(source: str, allowed: frozenset[str]) -> list[str]:
    tree = ast.parse(source)
    outward = [name for name in imported(tree) if not any(f"{name}.".startswith(f"{each}.") for each in allowed)]
    return [*outward, *(f"{name}()" for name in called(tree) if name in EFFECTS)]


@pytest.mark.parametrize(
    ("path", "allowed"), [pytest.param(*each, id=str(each[0].relative_to(PACKAGE))) for each in LAYERS]
)
def test_the_layer_imports_only_inwards_and_touches_nothing(path, allowed):
    assert violations(path.read_text(encoding="utf-8"), allowed) == []


def test_every_layer_has_modules():
    assert {path.parent.name for path, _ in LAYERS} == {"rag_jax", "core", "decode", "models"}


FORMS = ["import rag_jax.{}", "from rag_jax import {}", "from rag_jax.{} import x", "def f():\n    import rag_jax.{}"]


@pytest.mark.parametrize("package", SHELL)
@pytest.mark.parametrize("form", FORMS)
def test_an_import_of_a_shell_package_is_found(form, package):
    assert len(violations(form.format(package), CORE)) == 1
    assert len(violations(form.format(package), MODELS)) == 1


@pytest.mark.parametrize(
    "bad",
    [
        "import torch",
        "import os, jax",
        "import jaxlib",
        "import rag_jax",
        "from rag_jax import *",
        "from rag_jax.models import bart",
        "from . import losses",
        "from ..config import config",
        "from time import perf_counter",
        "import flax.linen as nn",
        "print(1)",
        "jax.debug.print('x')",
        "open('x')",
        "time.time()",
        "eval('1')",
    ],
)
def test_what_the_core_must_not_do_is_found(bad):
    assert violations(bad, CORE)


@pytest.mark.parametrize(
    "good",
    [
        "import jax.numpy as jnp",
        "from jax import numpy",
        "from collections.abc import Iterator",
        "from rag_jax.core import likelihood",
        "from rag_jax.core.losses import Objective",
        "from rag_jax.types import Tokens",
        "printed = opened(1)",
    ],
)
def test_what_the_core_may_do_is_not_found(good):
    assert not violations(good, CORE)
    assert not violations(good, MODELS)


def test_networks_may_import_flax_and_one_another():
    assert not violations("import flax.linen as nn\nfrom rag_jax.models.attention import Attention", MODELS)


PACKAGES = (  # each imports only from those before it
    *("errors", "terminal", "types", "core", "models", "data", "corpus", "hub"),
    *("index", "config", "parallel", "pipeline"),
    *("rag", "evaluation", "moderation", "training", "contrastive", "instruction", "demo", "experiments"),
    *("commands", "cli"),
)


def test_every_package_has_its_place_in_the_order() -> None:
    packages = {each.stem for each in PACKAGE.iterdir() if not each.name.startswith("__") and each.name != "py.typed"}
    assert packages == set(PACKAGES)


@pytest.mark.parametrize(
    "path", [pytest.param(each, id=str(each.relative_to(PACKAGE))) for each in sorted(PACKAGE.rglob("*.py"))]
)
def test_packages_import_one_way(path: Path) -> None:
    package = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if package.startswith("__"):
        return
    assert forward(package, path.read_text(encoding="utf-8")) == []


def forward(package: str, source: str) -> list[str]:
    """Imports of later packages, and relative ones, which do not name their package."""
    before = (*PACKAGES[: PACKAGES.index(package) + 1], "RAG")
    names = imported(ast.parse(source))
    return [name for name in names if re.match(rf"\.|rag_jax\.(?!({'|'.join(before)})\b)", name)]


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from rag_jax.rag import RAG", ["rag_jax.rag.RAG"]),
        ("import rag_jax.indexes", ["rag_jax.indexes"]),
        ("from ..rag import RAG", ["..rag.RAG"]),
        ("from . import store", ["..store"]),
        ("import jax, rag_jax.index.store\nfrom rag_jax.hub import load", []),
    ],
)
def test_an_import_of_a_later_package_is_found(source: str, found: list[str]) -> None:
    assert forward("index", source) == found
