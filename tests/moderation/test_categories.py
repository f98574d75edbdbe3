"""Categories: what a moderator classifies texts into."""

import json

import pytest

from rag_jax.errors import InputError
from rag_jax.moderation.categories import SELF_REFLECTION, Categories, Category


def test_the_acceptable_label_is_the_first():
    assert SELF_REFLECTION.names == ("acceptable", "illegal", "hateful", "advice")


@pytest.mark.parametrize(
    ("moderated", "told"),
    [
        ((), "^categories: none is moderated; name one at least$"),
        ((Category(" "),), "^categories: one has no name; name each, and the acceptable one$"),
        ((Category("spam"), Category("Spam ")), "^categories: two are called 'spam'; give each a name of its own$"),
        ((Category("acceptable"),), "^categories: two are called 'acceptable'"),
        ((Category("spam", threshold=1.5),), "^category 'spam': its threshold is 1.5; give one from 0 to 1$"),
        ((Category("spam", threshold=float("nan")),), "^category 'spam': its threshold is nan"),
        ((Category("spam", policy="delete"),), r"^category 'spam'\.policy is 'delete'; give 'pass' or"),  # type: ignore[arg-type]
    ],
)
def test_categories_that_decide_nothing_are_refused(moderated, told):
    with pytest.raises(InputError, match=told):
        Categories(moderated)


def test_they_are_read_from_a_file(tmp_path):
    path = tmp_path / "categories.json"
    path.write_text(json.dumps({"moderated": [{"name": "spam", "threshold": 1, "policy": "flag"}], "acceptable": "ok"}))
    assert Categories.read(path) == Categories((Category("spam", threshold=1.0, policy="flag"),), "ok")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{}", 'give "moderated", a list of categories, and "acceptable", a name'),
        ('{"moderated": []}', "categories: none is moderated; name one at least$"),
        (
            '{"moderated": [{"nam": "spam"}]}',
            r"unknown key 'moderated\[0\]\.nam'; the nearest is 'moderated\[0\]\.name'$",
        ),
        (
            '{"moderated": [{"name": "spam", "threshold": "high"}]}',
            r"moderated\[0\]\.threshold is 'high'; give a number$",
        ),
        ('{"moderated": [{"name": "spam", "policy": "ban"}]}', r"moderated\[0\]\.policy is 'ban'; give"),
    ],
)
def test_a_file_that_holds_no_categories_is_named(tmp_path, content, told):
    path = tmp_path / "categories.json"
    path.write_text(content)
    with pytest.raises(InputError, match=told) as refused:
        Categories.read(path)
    assert str(refused.value).startswith(f"{path}: ")
