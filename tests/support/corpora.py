"""Reading corpora in tests: the first fault, and all of them."""

import io
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from rag_jax.corpus import BadLines, Passage, read_corpus
from rag_jax.errors import InputError

any_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
# What a corpus is full of, and csv stumbles over, more often than chance would bring it.
awkward = st.lists(st.sampled_from(['"', '""', "\t", "\n", "\r\n", "é", "\ufeff", "a b"])).map("".join)
texts = any_text | awkward
corpora = st.lists(
    st.builds(Passage, texts.filter(str.strip), texts, texts.filter(str.strip), st.just("")),
    min_size=1,
    max_size=4,
    unique_by=lambda passage: passage.id,
)
# The folder of one test serves all of its examples: each writes its file anew.
one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)


def refusal(path: Path) -> str:
    """The message that reading ends with, after the path: one line, with a remedy."""
    with pytest.raises(InputError) as caught:
        list(read_corpus(path))
    message = str(caught.value)
    assert message.startswith(str(path))
    assert re.fullmatch("[^\n]+; [^\n]+", message)
    return message.removeprefix(str(path))


def skipping(path: Path) -> tuple[list[Passage], list[str]]:
    """The passages that are left without the bad rows, and the log of those."""
    log = io.StringIO()
    bad = BadLines(log.write)
    passages = list(read_corpus(path, on_bad_line=bad))
    messages = log.getvalue().splitlines()
    assert bad.count == len(messages)
    return passages, messages
