"""`rag-jax plan`: what an index of any size takes on a device."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from rag_jax.config.command_line import parse
from rag_jax.data.files import format_bytes
from rag_jax.index.sizing import BYTES, DEVICES, IndexSize
from rag_jax.terminal import Terminal


@dataclass(frozen=True)
class PlanCommand:
    """Bytes of each part of an index, devices needed, and the least time of a search, by arithmetic."""

    passages: int = 21_015_324  # N; the default is the paper's Wikipedia
    width: int = 768  # D
    tokens: int = 160  # P, of the longest passage in the generator's vocabulary
    vocabulary: int = 50_265  # of the generator; tokens of more than 65,536 take four bytes each, otherwise two

    def run(self) -> None:
        """Print two tables."""
        size, console = IndexSize(self.passages, self.width, self.tokens, self.vocabulary), Terminal()
        console.print(f"{self.passages:,} passages, vectors of {self.width}, {self.tokens} tokens\n", highlight=False)
        parts = Table("on the devices", *BYTES, box=None, pad_edge=False)
        for part in size.parts("float32"):
            parts.add_row(part, *(format_bytes(size.parts(precision)[part]) for precision in BYTES))
        parts.add_row("all", *(format_bytes(sum(size.parts(precision).values())) for precision in BYTES))
        console.print(parts)
        needed = Table("devices needed: ms a search", *BYTES, box=None, pad_edge=False)
        for device in DEVICES:
            cells = (f"{size.devices(p, device)}: {1e3 * size.roofline(p, device):.1f}" for p in BYTES)
            needed.add_row(device.name, *cells)
        console.print()
        console.print(needed)
        console.print("\nThe times are bytes of vectors by the memory's bandwidth: no search of all can be faster.")


def plan(arguments: Sequence[str]) -> None:
    """`rag-jax plan`."""
    parse(PlanCommand, arguments, remedy="rag-jax plan --help lists all options", prog="rag-jax plan").run()
