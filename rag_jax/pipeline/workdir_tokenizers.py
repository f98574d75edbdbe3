"""The tokenizers that a workdir's parameters were trained with.

The generator's tokenizer is saved in the workdir; the question tower's stays with its checkpoint; the passage tower's
is part of the store's fingerprint. Fingerprints of the first two are saved beside the config and compared on loading:
with another tokenizer the same ids mean other tokens.
"""

from pathlib import Path
from typing import Any

from rag_jax.data import strict_json
from rag_jax.data.files import write_atomically
from rag_jax.data.tokenizers import GeneratorTokenizer, fingerprint, read_generator_tokenizer, read_tokenizer
from rag_jax.errors import InputError
from rag_jax.models.architecture import SpecialTokens
from rag_jax.pipeline.components import BiEncoder, Components

TOKENIZER, FINGERPRINTS = "tokenizer.json", "fingerprints.json"
FORMAT = 1
REMEDY = "copy it back from where the workdir is from"


def save(components: Components, workdir: Path) -> None:
    """Write the generator's tokenizer, unless there is one already, and the fingerprints of both tokenizers."""
    if not (workdir / TOKENIZER).exists():
        write_atomically(workdir / TOKENIZER, components.generator_tokenizer.tokenizer.to_str(pretty=True))
    generator_tokenizer = read_tokenizer(workdir / TOKENIZER)  # the fingerprint of what loading will return
    tokenizers = {"generator": generator_tokenizer, "question_tower": components.bi_encoder.tokenizer}
    fingerprints = {"format": FORMAT, **{name: fingerprint(each) for name, each in tokenizers.items()}}
    write_atomically(workdir / FINGERPRINTS, strict_json.dumps(fingerprints, indent=2) + "\n")


def load_if_present(workdir: Path, special: SpecialTokens) -> GeneratorTokenizer | None:
    """The generator's tokenizer in a workdir, saved by a run or placed there before it; None without one."""
    path = workdir / TOKENIZER
    return read_generator_tokenizer(path, special) if path.exists() else None


def load(workdir: Path, special: SpecialTokens) -> GeneratorTokenizer:
    """The generator's tokenizer of a run. Raises `InputError` where it is missing or not the one saved by the run."""
    path, tokenizer = workdir / TOKENIZER, load_if_present(workdir, special)
    if tokenizer is None:
        raise InputError(f"{path}: missing, and the parameters there need it; {REMEDY}")
    if fingerprint(tokenizer.tokenizer) != _fingerprints(workdir).get("generator"):
        raise InputError(f"{path}: not the one that the parameters there were trained with; {REMEDY}")
    return tokenizer


def check(bi_encoder: BiEncoder, tokenizer: GeneratorTokenizer, workdir: Path) -> None:
    """Raise `InputError` for tokenizers other than those the parameters in a workdir were trained with."""
    fingerprints = _fingerprints(workdir)
    if fingerprint(tokenizer.tokenizer) != fingerprints.get("generator"):
        remedy = f"name {workdir / TOKENIZER} as generator.tokenizer, in a new --workdir"
        raise InputError(f"{workdir}: was trained with another tokenizer of the generator; {remedy}")
    if fingerprint(bi_encoder.tokenizer) != fingerprints.get("question_tower"):
        remedy = f"restore the tokenizer that {bi_encoder.source} had then"
        raise InputError(f"{workdir}: was trained with another tokenizer of the question tower; {remedy}")


def _fingerprints(workdir: Path) -> dict[str, Any]:
    path = workdir / FINGERPRINTS
    fingerprints = strict_json.read_object(path, REMEDY, REMEDY)
    if fingerprints.get("format") != FORMAT:
        raise InputError(f"{path}: of another version of this library; train into another --workdir")
    return fingerprints
