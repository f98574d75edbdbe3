"""Instruction tuning of a decoder-only generator, on conversations and on questions with passages."""
