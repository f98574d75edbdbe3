"""Text to token ids, for the tower and for the generator.

Both are `tokenizers.Tokenizer`s, which hold everything that encodes and decodes. The tower's adds its special tokens
itself; the generator's pieces get theirs here, because passage and question are tokenised apart and joined inside the
compiled program. Special tokens come from there and from templates only: what a user writes is text (`reading_text`).
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from rag_jax.data import templates
from rag_jax.errors import InputError
from rag_jax.models.architecture import SpecialTokens
from rag_jax.types import Tokens, host

USUAL = SpecialTokens()


class GeneratorTokenizer(NamedTuple):
    """A generator's tokenizer with the ids of its special tokens, and how its input is worded.

    The templates are those of the paper's reference implementation. As there, a title loses one pair of quotes, and
    double spaces become single ones.
    """

    tokenizer: Tokenizer
    bos: int | None  # before a passage; None: nothing is
    pad: int
    eos: int
    decoder_start: int  # what an answer is decoded from in training
    passage_template: str = "{title} / {text}"
    question_template: str = " // {question}"

    def __repr__(self) -> str:  # a tokenizer's own is all of its words
        return f"Vocabulary({self.size:,} tokens, {self.passage_template!r}, {self.question_template!r})"

    @property
    def size(self) -> int:
        return self.tokenizer.get_vocab_size()

    @property
    def passage_start(self) -> list[int]:
        """What a passage begins with, and all that there is of an empty one."""
        return [] if self.bos is None else [self.bos]

    def passages(self, texts: Sequence[tuple[str, str]]) -> list[list[int]]:
        """`<s> title / text` of (title, text) pairs, whole; `<s> text` where there is no title."""
        titled, untitled = templates.cut(self.passage_template, self.tokenizer), templates.PLAIN
        rows = [
            # The question's separator begins with a space.
            templates.filled(titled if title else untitled, before=" ", title=_unquoted(title), text=text)
            for title, text in texts
        ]
        return [[*self.passage_start, *ids] for ids in templates.encode(self.tokenizer, rows)]

    def prompts(self, questions: Sequence[str]) -> list[list[int]]:
        """` // question </s>`, whole."""
        template = templates.cut(self.question_template, self.tokenizer)
        rows = [templates.filled(template, question=question) for question in questions]
        return [[*ids, self.eos] for ids in templates.encode(self.tokenizer, rows)]

    def targets(self, answers: Sequence[str]) -> list[list[int]]:
        """` answer </s>`, whole; the leading space makes a word the same tokens here as inside a passage."""
        return [[*ids, self.eos] for ids in self._encode([f" {answer}" for answer in answers])]

    def prefixes(self, texts: Sequence[str]) -> list[list[int]]:
        """` text`, the beginning of an answer; of an empty text nothing."""
        return self._encode([f" {text.strip()}" if text.strip() else "" for text in texts])

    def text(self, ids: Iterable[int]) -> str:
        """The text of generated ids, special tokens left out."""
        return self.tokenizer.decode([int(i) for i in ids], skip_special_tokens=True).strip()

    def token(self, number: int) -> str:
        """A token by its id. Raises `ValueError` for an id that is none."""
        found = self.tokenizer.id_to_token(number)
        if found is None:
            raise ValueError(f"{number} is no token of {self!r}")
        return found

    def _encode(self, texts: list[str]) -> list[list[int]]:
        return templates.encode(self.tokenizer, [[text] for text in texts])


def read_generator_tokenizer(path: Path, special: SpecialTokens = USUAL) -> GeneratorTokenizer:
    """A generator's tokenizer from its tokenizer.json."""
    return generator_tokenizer(read_tokenizer(path), str(path), special)


def generator_tokenizer(tokenizer: Tokenizer, where: str, special: SpecialTokens = USUAL) -> GeneratorTokenizer:
    """Find a generator's special tokens in a tokenizer, which `where` names in errors, and set it to read text."""
    ids = {}
    for token in special.needed:
        found = tokenizer.token_to_id(token)
        if found is None:
            raise InputError(f"{where}: no token {token}; give a tokenizer with {', '.join(special.needed)}")
        ids[token] = found
    bos = None if special.bos is None else ids[special.bos]
    return GeneratorTokenizer(
        ignore_special_tokens_in_text(tokenizer), bos, ids[special.pad], ids[special.eos], ids[special.start]
    )


def read_tokenizer(path: Path) -> Tokenizer:
    """A tokenizer from its tokenizer.json, set to read text."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a folder that holds a tokenizer.json")
    try:
        return ignore_special_tokens_in_text(Tokenizer.from_file(str(path)))
    except Exception as error:  # the Rust side raises plain Exception
        raise InputError(f"{path}: not a readable tokenizer ({error}); copy or download it again") from None


def ignore_special_tokens_in_text(tokenizer: Tokenizer) -> Tokenizer:
    """Set a tokenizer to read whole texts: no stored padding or truncation, and special tokens in them are text.

    A document that spells `</s>`, or a question that spells `[SEP]`, does not end a sequence or begin another. Tokens
    that were added as ordinary words stay tokens.
    """
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.encode_special_tokens = True  # that is: as other text. It is no part of tokenizer.json
    # A model that has them among its words (Unigram, whole words) would find them still: it gets to see them in halves.
    if whole := [token for token in _found_as_words(tokenizer) if len(token) > 1]:
        middle = "|".join(f"(?<={re.escape(token[0])})(?={re.escape(token[1:])})" for token in whole)
        halves = pre_tokenizers.Split(Regex(middle), "isolated")
        before = [] if tokenizer.pre_tokenizer is None else [tokenizer.pre_tokenizer]
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*before, halves])
    return tokenizer


def _found_as_words(tokenizer: Tokenizer) -> list[str]:
    """The special tokens that a text which spells them would have."""
    special = {token.content: i for i, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    texts = [text for token in special for text in (token, f"{token} a{token}")]
    encoded = zip(texts, tokenizer.encode_batch(texts, add_special_tokens=False), strict=True)
    found = {(i, text[slice(*span)]) for text, each in encoded for i, span in zip(each.ids, each.offsets, strict=True)}
    return [token for token, i in special.items() if (i, token) in found]


def train_generator_tokenizer(texts: Iterable[str], size: int, special: SpecialTokens = USUAL) -> GeneratorTokenizer:
    """Learn a byte-level BPE in which every digit is a token of its own, so that numbers can be copied."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[*special.needed, *special.others],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    # Used here on pieces, without it; whoever takes the tokenizer elsewhere expects whole inputs, as the network reads.
    whole = " ".join(each for each in (special.bos, "$A", special.eos) if each)
    ids = [(token, tokenizer.token_to_id(token)) for token in (special.bos, special.eos) if token]
    tokenizer.post_processor = processors.TemplateProcessing(single=whole, special_tokens=ids)
    return generator_tokenizer(tokenizer, "the new vocabulary", special)


def _unquoted(title: str) -> str:
    return title.removeprefix('"').removesuffix('"')


def pad(rows: Sequence[Sequence[int]], length: int, fill: int, dtype: type = np.int32) -> Tokens:
    """Right-padded arrays on the host; every row must fit."""
    ids = np.full((len(rows), length), fill, dtype)
    for row, tokens in zip(ids, rows, strict=True):
        row[: len(tokens)] = tokens
    return Tokens(host(ids), host(np.asarray([len(tokens) for tokens in rows], np.int32)))


def fingerprint(tokenizer: Tokenizer) -> str:
    """A short digest of everything that a tokenizer does, encoding and decoding."""
    return hashlib.sha256(tokenizer.to_str().encode()).hexdigest()[:16]
