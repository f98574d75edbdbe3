"""The tokenizers that checkpoints carry: today's tokenizer.json, and the older files, through transformers."""

import json
from pathlib import Path

from tokenizers import Tokenizer

from rag_jax.data.tokenizers import read_tokenizer
from rag_jax.errors import InputError
from rag_jax.hub.described import write_json

OLDER = {"vocab.txt": "BertTokenizer", "vocab.json": "BartTokenizer"}  # file -> transformers' class that reads it
SPECIAL = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk> [UNK]",
    "sep_token": "</s> [SEP]",
    "pad_token": "<pad> [PAD]",
    "cls_token": "<s> [CLS]",
    "mask_token": "<mask> [MASK]",
}
"""Roles, and the tokens that play them in BART's and in BERT's vocabulary."""


def read(folder: Path) -> Tokenizer | None:
    """The folder's tokenizer, without padding and truncation; None where it holds none.

    Raises `InputError` for one that cannot be read.
    """
    if (folder / "tokenizer.json").exists():
        return read_tokenizer(folder / "tokenizer.json")
    for file, kind in OLDER.items():
        if (folder / file).exists():
            return _older(folder, kind)
    return None


def write(folder: Path, tokenizer: Tokenizer) -> None:
    """Write tokenizer.json, as it is, and what transformers' AutoTokenizer asks for beside it."""
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    roles = {role: next((t for t in tokens.split() if t in vocabulary), None) for role, tokens in SPECIAL.items()}
    special = {role: token for role, token in roles.items() if token}
    # Nothing is cleaned up in decoded texts: what transformers decodes from it is what is decoded here.
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **special}
    write_json(folder / "tokenizer_config.json", config)
    # Not by its own `save`: the Rust side raises plain Exception where a disk is full.
    (folder / "tokenizer.json").write_text(tokenizer.to_str(pretty=True), encoding="utf-8")


def fitted(tokenizer: Tokenizer, vocab_size: int, where: str) -> Tokenizer:
    """The tokenizer without the special tokens that a generator of `vocab_size` has no row for.

    BART's `<mask>` is one in checkpoints of 50 264 tokens. Raises `InputError` where it has too many others.
    """
    if tokenizer.get_vocab_size() <= vocab_size:
        return tokenizer
    stored = json.loads(tokenizer.to_str())
    stored["added_tokens"] = [token for token in stored["added_tokens"] if token["id"] < vocab_size]
    vocabulary = stored["model"]["vocab"]
    surplus = {token for token, i in tokenizer.get_vocab(with_added_tokens=True).items() if i >= vocab_size}
    special = {token for token in surplus if token.startswith("<") and token.endswith(">")}
    if surplus != special or not isinstance(vocabulary, dict):
        what = f"a tokenizer of {tokenizer.get_vocab_size()} tokens, a generator of {vocab_size}"
        raise InputError(f"{where}: {what}; take the tokenizer that was saved with the weights")
    stored["model"]["vocab"] = {token: i for token, i in vocabulary.items() if i < vocab_size}
    return Tokenizer.from_str(json.dumps(stored))


def _older(folder: Path, kind: str) -> Tokenizer:
    import transformers

    try:
        tokenizer = getattr(transformers, kind).from_pretrained(folder).backend_tokenizer
    except Exception as error:  # the Rust side raises plain Exception
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"{folder}: the tokenizer cannot be read ({reason}); copy or download it again") from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer
