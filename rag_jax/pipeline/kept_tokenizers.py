"""The tokenizers that a workdir's parameters were trained with: by others, the same numbers are other words.

The generator's is kept in the workdir, the question tower's stays with its checkpoint; the passage tower's is part of
the store's fingerprint. A run leaves fingerprints of the first two beside its config; who opens the workdir compares.
"""

import json
from pathlib import Path
from typing import Any

from rag_jax.data.files import write_atomically
from rag_jax.data.tokenizers import GeneratorTokenizer, fingerprint, read_generator_tokenizer, read_tokenizer
from rag_jax.errors import InputError
from rag_jax.models.architecture import SpecialTokens
from rag_jax.pipeline.components import BiEncoder, Components

TOKENIZER, FINGERPRINTS = "tokenizer.json", "fingerprints.json"
FORMAT = 1


def keep(components: Components, workdir: Path) -> None:
    """Write the generator's tokenizer, where none is there yet, and the fingerprints of what is read with."""
    if not (workdir / TOKENIZER).exists():
        write_atomically(workdir / TOKENIZER, components.generator_tokenizer.tokenizer.to_str(pretty=True))
    words = read_tokenizer(workdir / TOKENIZER)  # as whoever opens the workdir gets it
    read_with = {"generator": words, "question_tower": components.bi_encoder.tokenizer}
    told = {"format": FORMAT, **{name: fingerprint(each) for name, each in read_with.items()}}
    write_atomically(workdir / FINGERPRINTS, json.dumps(told, indent=2) + "\n")


def read(workdir: Path, special: SpecialTokens) -> GeneratorTokenizer | None:
    """The generator's vocabulary that is in a workdir, or was put there before a run; None where there is none."""
    path = workdir / TOKENIZER
    return read_generator_tokenizer(path, special) if path.exists() else None


def kept(workdir: Path, special: SpecialTokens) -> GeneratorTokenizer:
    """The generator's vocabulary of a run. Raises `InputError` where it is missing, or is another than it was."""
    path, words = workdir / TOKENIZER, read(workdir, special)
    if words is None:
        raise InputError(f"{path}: missing, and the parameters there mean its tokens; {REMEDY}")
    if fingerprint(words.tokenizer) != _told(workdir).get("generator"):
        raise InputError(f"{path}: not the one that the parameters there were trained with; {REMEDY}")
    return words


def check(towers: BiEncoder, words: GeneratorTokenizer, workdir: Path) -> None:
    """Refuse to read with other tokenizers than the parameters in a workdir were trained with."""
    told = _told(workdir)
    if fingerprint(words.tokenizer) != told.get("generator"):
        remedy = f"name {workdir / TOKENIZER} as generator.tokenizer, in a new --workdir"
        raise InputError(f"{workdir}: was trained with another tokenizer of the generator; {remedy}")
    if fingerprint(towers.tokenizer) != told.get("question_tower"):
        remedy = f"put back the tokenizer that {towers.source} had then"
        raise InputError(f"{workdir}: was trained with another tokenizer of the question tower; {remedy}")


def _told(workdir: Path) -> dict[str, Any]:
    path = workdir / FINGERPRINTS
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise InputError(f"{path}: missing or damaged; copy it again from where the workdir is from") from None
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        raise InputError(f"{path}: of another version of this library; train into another --workdir")
    return told


REMEDY = "copy it back from where the workdir is from"
