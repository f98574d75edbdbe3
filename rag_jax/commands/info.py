"""What a knowledge store says of itself, for people."""

import time
from pathlib import Path

from rich.table import Table

from rag_jax.data import files
from rag_jax.index import manifest, part_files
from rag_jax.index.manifest import Manifest
from rag_jax.index.store import open_store
from rag_jax.terminal import Terminal


def show(folder: Path, verify: bool = False) -> None:
    """Print a store's counts, origins, engines and sizes. Raises `InputError` for what is missing or damaged."""
    found = manifest.read(folder)
    open_store(folder, None, None)  # finds missing and cut files
    began = time.perf_counter()
    checked = manifest.verify(folder, found) if verify else 0
    seconds = time.perf_counter() - began
    table = Table(box=None, pad_edge=False, show_header=False)
    for row in _rows(folder, found):
        table.add_row(*(str(cell) for cell in row))
    console = Terminal()
    console.print(table)
    if verify:
        rate = f"{files.format_bytes(checked)} in {seconds:.1f} s, {checked / seconds / 1e6:,.0f} MB/s"
        console.print(
            f"Every file has the checksum that was written with it ({rate}).", highlight=False, soft_wrap=True
        )
    console.print(f'Next: rag-jax search "QUERY" --index {folder}', soft_wrap=True)


def _rows(folder: Path, found: Manifest) -> list[tuple[str, str]]:
    gone = found.rows - found.passages
    rows = [
        ("store", f"{folder}, version {found.version}"),
        ("passages", f"{found.passages:,}" + (f" ({gone:,} removed)" if gone else "")),
        ("vectors", f"{found.width} x {found.dtype}"),
        ("tower", f"{found.tower['source']} ({found.tower['fingerprint']})"),
        *([("  questions", found.question_source)] if found.question_source != found.tower["source"] else []),
        ("  reads", f"{found.tower['template']}; {found.truncated().summary(found.tower['max_length'])}"),
        *([("  split", str(found.cut))] if found.cut is not None else []),
        *(row for key, facts in found.generators.items() for row in _generator(found, key, facts)),
        *(("engine", _engine(name, facts)) for name, facts in found.engines.items()),
        ("segments", str(len(found.segments))),
        *((f"  {kind}", files.format_bytes(size)) for kind, size in _sizes(folder, found).items()),
    ]
    return rows + [("change", f"{each['version']}: {each['change']}, {each['passages']:,}") for each in found.changes]


def _generator(found: Manifest, key: str, facts: dict) -> list[tuple[str, str]]:
    cut = found.truncated(f"tokens-{key}").summary(facts["max_length"])
    return [("generator", facts["tokenizer"]), ("  reads", f"{facts['template']}; {cut}")]


def _engine(name: str, facts: dict) -> str:
    recall = ", ".join(f"{at} {value:.3f}" for at, value in facts.get("recall", {}).items())
    return f"{name} {facts.get('factory', '')}".strip() + (f": {recall}" if recall else "")


def _sizes(folder: Path, found: Manifest) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for part, checksum in found.parts.items():
        kind = part if part in found.checksums else Path(part).parent.name
        held = sum(facts.bytes for facts in part_files.read_description(folder / part, checksum).values())
        sizes[kind] = sizes.get(kind, 0) + held
    return sizes
