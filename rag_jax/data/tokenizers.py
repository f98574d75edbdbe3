"""Text to token ids, for the tower and for the generator.

Both are `tokenizers.Tokenizer`s read from a tokenizer.json, so that a checkpoint's own tokenizer is used as it is. The
tower's adds its special tokens itself; the generator's pieces get theirs here, because passage and question are
tokenised apart and joined inside the compiled program.
"""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from rag_jax.errors import InputError
from rag_jax.types import Tokens, host

BOS, PAD, EOS, UNKNOWN, MASK = "<s>", "<pad>", "</s>", "<unk>", "<mask>"  # BART's


class Vocabulary(NamedTuple):
    """A generator's tokenizer with the ids of its special tokens, and how its input is worded.

    The templates are those of the paper's reference implementation. As there, a title loses one pair of quotes, and
    double spaces become single ones.
    """

    tokenizer: Tokenizer
    bos: int
    pad: int
    eos: int
    passage_template: str = "{title} / {text}"
    question_template: str = " // {question}"

    @property
    def size(self) -> int:
        return self.tokenizer.get_vocab_size()

    def passages(self, texts: Sequence[tuple[str, str]], max_length: int) -> list[list[int]]:
        """`<s> title / text` of (title, text) pairs, cut at its end; `<s> text` where there is no title."""
        joined = [self._passage(title, text) for title, text in texts]
        return [[self.bos, *ids][:max_length] for ids in self._encode(joined)]

    def prompts(self, questions: Sequence[str]) -> list[list[int]]:
        """` // question </s>`, whole."""
        return [[*ids, self.eos] for ids in self._encode([self._prompt(question) for question in questions])]

    def targets(self, answers: Sequence[str]) -> list[list[int]]:
        """` answer </s>`, whole; the leading space makes a word the same tokens here as inside a passage."""
        return [[*ids, self.eos] for ids in self._encode([f" {answer}" for answer in answers])]

    def prefixes(self, texts: Sequence[str]) -> list[list[int]]:
        """` text`, the beginning of an answer; of an empty text nothing."""
        return self._encode([f" {text.strip()}" if text.strip() else "" for text in texts])

    def text(self, ids: Iterable[int]) -> str:
        """The text of generated ids, special tokens left out."""
        return self.tokenizer.decode([int(i) for i in ids], skip_special_tokens=True).strip()

    def _passage(self, title: str, text: str) -> str:
        unquoted = title.removeprefix('"').removesuffix('"')
        joined = self.passage_template.format(title=unquoted, text=text) if title else text
        return f"{joined} ".replace("  ", " ")[:-1]  # the question's separator begins with a space

    def _prompt(self, question: str) -> str:
        return self.question_template.format(question=question).replace("  ", " ")

    def _encode(self, texts: list[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self.tokenizer.encode_batch(texts, add_special_tokens=False)]


def read_vocabulary(path: Path) -> Vocabulary:
    """A generator's tokenizer from its tokenizer.json."""
    return vocabulary(read_tokenizer(path), str(path))


def vocabulary(tokenizer: Tokenizer, where: str) -> Vocabulary:
    """Find BART's special tokens in a tokenizer, which `where` names in errors."""
    ids = [tokenizer.token_to_id(token) for token in (BOS, PAD, EOS)]
    missing = [token for token, i in zip((BOS, PAD, EOS), ids, strict=True) if i is None]
    if missing:
        raise InputError(f"{where}: no token {missing[0]}; give a tokenizer with BART's tokens")
    bos, pad_id, eos = (i for i in ids if i is not None)
    return Vocabulary(tokenizer, bos, pad_id, eos)


def read_tokenizer(path: Path) -> Tokenizer:
    """A tokenizer from its tokenizer.json, without the padding and truncation stored in it."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a folder that holds a tokenizer.json")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the Rust side raises plain Exception
        raise InputError(f"{path}: not a readable tokenizer ({error}); copy or download it again") from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def train_vocabulary(texts: Iterable[str], size: int) -> Vocabulary:
    """Learn a byte-level BPE like BART's in which every digit is a token of its own, so that numbers can be copied."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[BOS, PAD, EOS, UNKNOWN, MASK],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    # Used here on pieces, without it; whoever takes the tokenizer elsewhere expects whole inputs as BART reads them.
    ids = [(token, tokenizer.token_to_id(token)) for token in (BOS, EOS)]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{BOS} $A {EOS}", special_tokens=ids)
    return vocabulary(tokenizer, "the new vocabulary")


def encode_texts(tokenizer: Tokenizer, texts: Sequence[str], max_length: int) -> list[list[int]]:
    """Token ids with the tokenizer's own special tokens; a long text is cut before its last special token."""
    encodings = [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]
    return [ids if len(ids) <= max_length else [*ids[: max_length - 1], ids[-1]] for ids in encodings]


def pad(rows: Sequence[Sequence[int]], length: int, fill: int, dtype: type = np.int32) -> Tokens:
    """Right-padded arrays on the host; every row must fit."""
    ids = np.full((len(rows), length), fill, dtype)
    for row, tokens in zip(ids, rows, strict=True):
        row[: len(tokens)] = tokens
    return Tokens(host(ids), host(np.asarray([len(tokens) for tokens in rows], np.int32)))


def fingerprint(tokenizer: Tokenizer) -> str:
    """A short digest of everything that a tokenizer does."""
    return hashlib.sha256(tokenizer.to_str().encode()).hexdigest()[:16]
