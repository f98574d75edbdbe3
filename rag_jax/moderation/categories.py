"""What texts are classified into: acceptable, or one of the categories that are moderated."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rag_jax.data.json_documents import read_object
from rag_jax.data.jsonl import validate_characters
from rag_jax.data.validation import validate_dataclass, validate_value
from rag_jax.errors import InputError

Policy = Literal["pass", "flag", "block"]  # ascending


@dataclass(frozen=True)
class Category:
    """A kind of text that is moderated, and what happens to such texts."""

    name: str  # the label whose likelihood is computed
    description: str = ""  # for the prompt of a model that was not trained on these categories
    threshold: float = 0.5  # the policy applies from this probability on
    policy: Policy = "block"


@dataclass(frozen=True)
class Categories:
    """The categories of a moderator. Raises `InputError` for none, equal or empty names, invalid thresholds."""

    moderated: tuple[Category, ...]
    acceptable: str = "acceptable"  # the label of all other texts

    def __post_init__(self) -> None:
        if not self.moderated:
            raise InputError("categories: none is moderated; name one at least")
        if not all(name.strip() for name in self.names):
            raise InputError("categories: one has no name; name each, and the acceptable one")
        folded = [name.strip().lower() for name in self.names]
        for name, key in zip(self.names, folded, strict=True):
            if folded.count(key) > 1:
                raise InputError(f"categories: two are called {name!r}; give each a name of its own")
        for each in self.moderated:
            validate_characters(each.name + each.description, "name and description", f"category {each.name!r}")
            validate_dataclass(Category, each, name=f"category {each.name!r}")
            if not 0 <= each.threshold <= 1 or math.isnan(each.threshold):
                raise InputError(f"category {each.name!r}: its threshold is {each.threshold}; give one from 0 to 1")

    @property
    def names(self) -> tuple[str, ...]:
        """The labels: the acceptable one, then those that are moderated."""
        return self.acceptable, *(each.name for each in self.moderated)

    @classmethod
    def read(cls, path: Path) -> "Categories":
        """From a JSON file: `{"moderated": [{"name": …, "description": …, "threshold": …, "policy": …}, …]}`."""
        found = read_object(path)
        rows = found.get("moderated")
        if not isinstance(rows, list) or found.keys() - {"moderated", "acceptable"}:
            raise InputError(
                f'{path}: give "moderated", a list of categories, and "acceptable", a name, and no other key'
            )
        moderated = (validate_dataclass(Category, row, f"{path}: ", f"moderated[{n}]") for n, row in enumerate(rows))
        acceptable = validate_value(str, found.get("acceptable", cls.acceptable), "acceptable", f"{path}: ")
        try:
            return cls(tuple(moderated), acceptable)
        except InputError as error:
            raise InputError(str(error) if str(error).startswith(str(path)) else f"{path}: {error}") from None


SELF_REFLECTION = Categories(
    (
        Category("illegal", "illegal activities, such as terrorism, child abuse or fraud"),
        Category("hateful", "hateful, harassing or violent content, such as discrimination, self-harm or bullying"),
        Category("advice", "unqualified advice, for instance in legal, medical or financial matters"),
    )
)
"""Those by which Mistral 7B classifies its own input and output (Jiang et al. 2023, section 5.2)."""
