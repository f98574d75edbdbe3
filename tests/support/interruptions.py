"""Ctrl-C while a model answers."""

from collections.abc import Callable, Iterator

from rag_jax.rag import RAG


def stream_until(count: int) -> Callable[..., Iterator]:
    """`RAG.stream`, interrupted after so many answers."""
    stream = RAG.stream

    def interrupted(self, *arguments, **options):
        for number, found in enumerate(stream(self, *arguments, **options)):
            if number == count:
                raise KeyboardInterrupt
            yield found

    return interrupted
