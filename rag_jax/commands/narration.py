"""What the demos print between their results."""

from rich.console import Console

console = Console()


def headline(text: str) -> None:
    """Print the title of a step."""
    say(f"\n[bold]{text}[/bold]")


def say(text: str) -> None:
    """Print a line, not wrapped and without colours of numbers."""
    console.print(text, highlight=False, soft_wrap=True)
