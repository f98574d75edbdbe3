"""Figures of what a model did."""

from pathlib import Path

from rag_jax.errors import InputError
from rag_jax.rag import Answer


def token_posterior(question: str, answer: Answer, path: Path) -> None:
    """Draw RAG-Token's posterior over the passages for every answer token, `p(z | x, y_t, y_<t)`, as a heat map.

    This is figure 2 of Lewis et al. 2020: which passage each token was taken from. The file's suffix says the format.
    """
    try:
        from matplotlib.figure import Figure  # not pyplot: no window, no global state
    except ImportError:
        raise InputError("figures need the package matplotlib; run: pip install 'rag-jax[demo]'") from None
    titles = [f"{number}. {passage.title}" for number, passage in enumerate(answer.passages, start=1)]
    tokens = [token.replace(" ", "␣") for token in answer.tokens]
    figure = Figure(figsize=(max(6.5, 2.5 + 0.55 * len(tokens)), 1.5 + 0.4 * len(titles)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(answer.token_posteriors, vmin=0, vmax=1, cmap="Blues", aspect="auto")
    axes.set_xticks(range(len(tokens)), tokens)
    axes.set_yticks(range(len(titles)), titles)
    axes.set_title(f"{question}\n{answer.text}", fontsize=10)
    axes.set_xlabel("answer token")
    figure.colorbar(image, ax=axes, label="posterior")
    figure.savefig(path, dpi=150)
