"""The results of a run, for the terminal."""

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table


def table(results: Mapping[str, Any]) -> RenderableType:
    """The likelihood of held-out responses, after training and before."""
    found = Table(box=None, pad_edge=False)
    for name in ("per response token", "this model", "before"):
        found.add_column(name, justify="left" if name.startswith("per") else "right")
    for label, name in (("negative log-likelihood", "nll"), ("perplexity", "perplexity")):
        cells = (results.get(f"{name}{suffix}") for suffix in ("", "_before"))
        found.add_row(label, *("" if cell is None else f"{cell:.3f}" for cell in cells))
    counts = f"{results['conversations']:,} held-out conversations, {results['response_tokens']:,} response tokens"
    return Group(found, "", f"{counts}, {results['steps']:,} steps, {results['train_seconds']:,.0f} s")
