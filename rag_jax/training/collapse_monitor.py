"""A warning when retrieval collapses: the failure that users of RAG report most, and that no loss shows.

Each window of steps is compared with the healthiest so far. Retrieval is called collapsing when fewer passages are
different than half of what were, and at the same time the answer tells less than half as much about its passage, or
the prior's entropy has halved. Either figure alone may fall in a healthy run: a better retriever is surer of itself.
"""

from collections.abc import Mapping
from typing import Any

FALL = 0.5  # of the best so far
RECOVERED = 0.75


class CollapseMonitor:
    """Judges a run's windows; its state goes into checkpoints, so that a run that goes on warns alike."""

    def __init__(self, state: Mapping[str, Any] | None = None) -> None:
        self._best: dict[str, float] = dict(state["best"]) if state else {}
        self._warned: bool = bool(state["warned"]) if state else False

    def state(self) -> dict[str, Any]:
        """As JSON."""
        return {"best": dict(self._best), "warned": self._warned}

    def judge(self, values: Mapping[str, float]) -> str | None:
        """One line where this window shows a collapse that was not told yet; None otherwise."""
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
        told = ", ".join(f"{MEANING[name]} {self._best[name]:.3g} -> {now[name]:.3g}" for name in sorted(fallen))
        return f"retrieval may be collapsing ({told}); lower optimizer.tower_learning_rate, or retriever.mode frozen"


MEANING = {
    "distinct": "different passages in a batch",
    "prior_entropy": "the prior's entropy",
    "kl": "what an answer tells about its passage",
}
