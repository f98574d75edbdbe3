"""Flags are asked for before they are set: XLA aborts a process at one that it does not know."""

import os

import pytest

import xla_flags


@pytest.mark.parametrize(("flag", "known"), [("--xla_force_host_platform_device_count=1", True), ("--xla_no=1", False)])
def test_a_flag_is_known_or_not(flag: str, known: bool, monkeypatch) -> None:
    monkeypatch.delenv("XLA_FLAGS")
    assert xla_flags.known(flag) == known


def test_what_the_tests_started_with_is_known() -> None:
    assert set(xla_flags.flags(2).split()) <= set(os.environ["XLA_FLAGS"].split())
