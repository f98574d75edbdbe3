"""The heat map of the token-wise posterior."""

import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="figures need the demo extra")

from rag_jax.errors import InputError
from rag_jax.evaluation import figures
from rag_jax.pipeline.answers import Answer, RetrievedPassage

PASSAGES = [
    RetrievedPassage("1", "Bada$$ and $100 %s", "Lyon lies on the $ Rhône .", -0.1, 0.9),
    RetrievedPassage("2", "", "a", -2, 0.1),
]
ANSWER = Answer("the $ Rhône $", -0.5, -0.2, PASSAGES, ["the", " $R", "h$ône$"], np.full((2, 3), 0.5), [])


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_heat_map_is_written_in_the_format_of_the_suffix(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"posterior.{suffix}"
    figures.check_path(path)
    figures.token_posterior("which $river$ $", ANSWER, path)
    assert path.read_bytes().startswith({"png": b"\x89PNG", "svg": b"<?xml"}[suffix])


def test_the_heat_map_has_a_row_for_each_passage_and_a_column_for_each_token() -> None:
    posteriors = np.array([[0.9, 0.6, 0.2], [0.1, 0.4, 0.8]])
    axes, _ = figures.token_posteriors("which $river$", ANSWER._replace(token_posteriors=posteriors)).axes
    (image,) = axes.images
    np.testing.assert_array_equal(image.get_array(), posteriors)
    assert image.get_clim() == (0, 1)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["1. Bada$$ and $100 %s", "2. "]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["the", "␣$R", "h$ône$"]
    assert axes.get_title() == "which $river$\nthe $ Rhône $"


@pytest.mark.parametrize("name", ["a.txt", "figure"])
def test_a_format_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    what = f"{tmp_path / name}: not a figure format; name a file that ends in .png, .pdf or .svg"
    with pytest.raises(InputError, match=f"^{re.escape(what)}$"):
        figures.check_path(tmp_path / name)


def test_an_answer_without_passages_and_a_missing_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the answer has no passages to draw a posterior of; leave --figure out$"):
        figures.token_posterior("who?", ANSWER._replace(passages=[]), tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a.png: cannot be written \(No such file or directory\); choose another"):
        figures.token_posterior("who?", ANSWER, tmp_path / "nowhere" / "a.png")
