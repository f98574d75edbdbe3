"""Which model and which engine a config names is looked up in one table each, and compared with a name nowhere."""

import ast
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest

from rag_jax.core.variants import VARIANTS, Method, Model
from rag_jax.hub.configs import RAG_ARCHITECTURES
from rag_jax.index.engines.registry import ENGINES, EngineName, TrainingEngineName

ROOT = Path(__file__).parents[1]
SOURCES = [*sorted((ROOT / "rag_jax").rglob("*.py")), ROOT / "train.py"]
NAMES = {*VARIANTS, *ENGINES, *typing.get_args(Method)}


def test_every_name_that_may_be_given_is_in_its_table() -> None:
    assert set(typing.get_args(Model)) == set(VARIANTS)
    assert set(RAG_ARCHITECTURES) == {name for name, variant in VARIANTS.items() if not variant.fuses}
    assert set(typing.get_args(TrainingEngineName)) == set(ENGINES)
    assert set(typing.get_args(EngineName)) == {name for name, kind in ENGINES.items() if not kind.reads_question_file}
    assert {method for variant in VARIANTS.values() for method in variant.decoders} == set(typing.get_args(Method))


def compared(source: str) -> Iterator[str]:
    """Names of models, methods and engines that values are compared with."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare):
            sides = [each for side in (node.left, *node.comparators) for each in getattr(side, "elts", [side])]
            found = {each.value for each in sides if isinstance(each, ast.Constant) and isinstance(each.value, str)}
            yield from (f"line {node.lineno}: {name}" for name in sorted(found & NAMES))
        if isinstance(node, ast.MatchValue) and isinstance(node.value, ast.Constant) and node.value.value in NAMES:
            yield f"line {node.value.lineno}: {node.value.value}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_code_compares_with_a_name(path: Path) -> None:
    assert list(compared(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "code",
    [
        'x = model == "token"',
        'x = engine in ("device", "fixed")',
        'x = 1 if method != "fast" else 2',
        'match model:\n    case "sequence":\n        pass',
    ],
)
def test_a_comparison_is_found(code: str) -> None:
    assert list(compared(code))
