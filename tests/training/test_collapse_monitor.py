"""The warning of a collapse: both figures must fall together, and it is said once."""

import pytest

from rag_jax.training.collapse_monitor import CollapseMonitor

HEALTHY = {"distinct": 0.9, "prior_entropy": 1.2, "kl": 0.3}
COLLAPSED = {"distinct": 0.2, "prior_entropy": 1.2, "kl": 0.05}


def test_fewer_passages_that_answers_no_longer_tell_apart_are_a_collapse() -> None:
    watchdog = CollapseMonitor()
    assert watchdog.judge(HEALTHY) is None
    told = watchdog.judge(COLLAPSED)
    assert told is not None
    assert "different passages in a batch 0.9 -> 0.2" in told
    assert "what an answer tells about its passage 0.3 -> 0.05" in told
    assert "entropy" not in told
    assert "\n" not in told


@pytest.mark.parametrize("name", HEALTHY)
def test_one_figure_alone_is_none(name: str) -> None:
    watchdog = CollapseMonitor()
    watchdog.judge(HEALTHY)
    assert watchdog.judge(HEALTHY | {name: 0.01}) is None


def test_it_is_told_once_until_retrieval_has_recovered() -> None:
    watchdog = CollapseMonitor()
    watchdog.judge(HEALTHY)
    assert watchdog.judge(COLLAPSED)
    assert watchdog.judge(COLLAPSED) is None
    assert watchdog.judge(HEALTHY) is None
    assert watchdog.judge(COLLAPSED)


def test_a_run_that_goes_on_judges_as_if_it_had_not_stopped() -> None:
    watchdog = CollapseMonitor()
    watchdog.judge(HEALTHY)
    assert CollapseMonitor(watchdog.state()).judge(COLLAPSED)
    watchdog.judge(COLLAPSED)
    assert CollapseMonitor(watchdog.state()).judge(COLLAPSED) is None


def test_a_run_without_retrieval_has_nothing_to_warn_of() -> None:
    assert CollapseMonitor().judge({"loss": 1.0}) is None
