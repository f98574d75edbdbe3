"""Warn when retrieval collapses, a common failure of RAG training that the loss does not show.

Each window of steps is compared with the best so far. Retrieval counts as collapsing when the share of distinct
passages falls below half, and so does either the KL divergence of posterior and prior or the entropy of the
prior. One of them alone may fall in a healthy run: a better retriever is more certain.
"""

from collections.abc import Mapping
from typing import Any

FALL = 0.5  # fraction of the best so far
RECOVERED = 0.75


class CollapseMonitor:
    """Compares windows of steps. Its state is saved in checkpoints, so that a resumed run warns alike."""

    def __init__(self, state: Mapping[str, Any] | None = None) -> None:
        self._best: dict[str, float] = dict(state["best"]) if state else {}
        self._warned: bool = bool(state["warned"]) if state else False

    def state(self) -> dict[str, Any]:
        """The state, JSON-serialisable."""
        return {"best": dict(self._best), "warned": self._warned}

    def judge(self, values: Mapping[str, float]) -> str | None:
        """A one-line warning if this window shows a new collapse; None otherwise."""
        now = {name: values[name] for name in ("distinct", "prior_entropy", "kl") if name in values}
        for name, value in now.items():
            self._best[name] = max(value, self._best.get(name, value))
        fallen = {name for name, value in now.items() if value < FALL * self._best[name]}
        collapsed = "distinct" in fallen and len(fallen) > 1
        if not collapsed:
            self._warned &= now.get("distinct", 1.0) < RECOVERED * self._best.get("distinct", 1.0)
            return None
        if self._warned:
            return None
        self._warned = True
        figures = ", ".join(f"{MEANING[name]} {self._best[name]:.3g} -> {now[name]:.3g}" for name in sorted(fallen))
        return f"retrieval may be collapsing ({figures}); lower optimizer.tower_learning_rate, or retriever.mode frozen"


MEANING = {
    "distinct": "different passages in a batch",
    "prior_entropy": "the prior's entropy",
    "kl": "what an answer tells about its passage",
}
