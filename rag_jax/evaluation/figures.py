"""Figures: how they are made and written, and those of posteriors."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_jax.data import outputs
from rag_jax.errors import InputError
from rag_jax.rag import Answer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 150


def check_path(path: Path) -> None:
    """Raise `InputError` without matplotlib, for an unknown format, and for a file that exists."""
    formats = sorted(new_figure().canvas.get_supported_filetypes())
    if path.suffix.removeprefix(".").lower() not in formats:
        raise InputError(f"{path}: not a figure format; name a file that ends in .png, .pdf or .svg")
    outputs.check_new(path)


def token_posterior(question: str, answer: Answer, path: Path) -> None:
    """Write the figure of `token_posteriors`; the suffix of `path` is its format.

    Raises `InputError` for an answer without passages, for one whose passages were read together, and for a file that
    cannot be written.
    """
    if not answer.passages:
        raise InputError(f"{path}: the answer has no passages to draw a posterior of; leave --figure out")
    if answer.token_posteriors is None:
        raise InputError(f"{path}: passages that were read together have no posterior to draw; leave --figure out")
    save(token_posteriors(question, answer), path)


def token_posteriors(question: str, answer: Answer) -> "Figure":
    """Draw the posterior over the passages for every answer token, `p(z | x, y_t, y_<t)`, as a heat map.

    This is figure 2 of Lewis et al. 2020: which passage each token was taken from. With RAG-Sequence all tokens have
    the same posterior, `p(z | x, y)`. Requires that the answer has them.
    """
    assert answer.token_posteriors is not None
    titles = [f"{number}. {passage.title}" for number, passage in enumerate(answer.passages, start=1)]
    tokens = [*map(visible, answer.tokens)]
    figure = new_figure(figsize=(max(6.5, 2.5 + 0.55 * len(tokens)), 1.5 + 0.4 * len(titles)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(answer.token_posteriors, vmin=0, vmax=1, cmap="Blues", aspect="auto")
    axes.set_xticks(range(len(tokens)), tokens, parse_math=False)
    axes.set_yticks(range(len(titles)), titles, parse_math=False)
    axes.set_title(f"{question}\n{answer.text}", fontsize=10, parse_math=False)
    axes.set_xlabel("answer token")
    figure.colorbar(image, ax=axes, label="posterior")
    return figure


def visible(token: str) -> str:
    """A token with its spaces and line feeds to be seen."""
    return token.replace(" ", "␣").replace("\n", "↵")


def save(figure: "Figure", path: Path) -> None:
    """Write a figure. Raises `InputError` for a file that cannot be written."""
    try:
        figure.savefig(path, dpi=DPI)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); choose another place") from None


def as_png(figure: "Figure") -> bytes:
    """A figure as the contents of a .png file."""
    file = io.BytesIO()
    figure.savefig(file, dpi=DPI, format="png")
    return file.getvalue()


def new_figure(**options: Any) -> "Figure":
    """A figure of matplotlib that belongs to no window and no global state. Raises `InputError` without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise InputError("figures need the package matplotlib; run pip install matplotlib") from None
    return Figure(**options)
