"""What commands print between their results."""

from rag_jax.terminal import Terminal, styled

console = Terminal()


def headline(text: str) -> None:
    """Print the title of a step."""
    console.print(styled(f"\n{text}", "bold"), soft_wrap=True)


def say(text: str) -> None:
    """Print a line, not wrapped and without colours of numbers."""
    console.print(text, soft_wrap=True)
