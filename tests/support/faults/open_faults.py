"""Families that are known not to keep the promise yet, each with the reason."""

OPEN: dict[str, str] = {}
