"""Tokenizers of the tower and of the generator.

Both are `tokenizers.Tokenizer`s. The tower's adds its special tokens itself; those of the generator are added here,
because passage and question are tokenised separately and joined inside the compiled program. Special tokens come from
there and from templates only: in user input they are plain text (`ignore_special_tokens_in_text`).
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
from rag_jax.types import PASSAGE, Tokens, host

DEFAULT_SPECIAL_TOKENS = SpecialTokens()


class GeneratorTokenizer(NamedTuple):
    """A generator's tokenizer, the ids of its special tokens, and the templates of its input.

    The default templates are those of the paper's reference implementation. As there, one pair of quotes is stripped
    from a title, and double spaces become single ones. `data.prompts` sets the other parts of a decoder-only input.
    """

    tokenizer: Tokenizer
    bos: int | None  # begins a passage; None: no token does
    pad: int
    eos: int
    decoder_start: int  # the decoder's first input
    prompt_end: tuple[int, ...]  # the tokens behind a question
    passage_template: str = "{title} / {text}"
    question_template: str = " // {question}"
    header: tuple[int, ...] = ()  # the tokens before the first passage
    separator: tuple[int, ...] = ()  # the tokens between two passages
    answer_template: str = " {answer}"  # the leading space gives a word the same tokens as inside a passage
    no_passage: tuple[int, ...] = ()  # the tokens in the place of a passage where there is none

    def __repr__(self) -> str:  # that of a tokenizer lists its whole vocabulary
        return f"GeneratorTokenizer({self.size:,} tokens, {self.passage_template!r}, {self.question_template!r})"

    @property
    def size(self) -> int:
        return self.tokenizer.get_vocab_size()

    @property
    def passage_start(self) -> list[int]:
        """The tokens that begin a passage."""
        return [] if self.bos is None else [self.bos]

    @property
    def empty_passage(self) -> list[int]:
        """The tokens of a passage without title and text: nothing of the template."""
        return [*self.passage_start, *self.no_passage]

    @property
    def is_passage_behind_text(self) -> bool:
        """Whether text stands before a passage, more than the tokens that begin any text."""
        return self._has_text_in_front or bool(self.question_template.rpartition("{passage}")[0])

    @property
    def _has_text_in_front(self) -> bool:
        return bool(self.header) and [*self.header] != templates.surrounding_special_tokens(self.tokenizer)[0]

    def passages(self, texts: Sequence[tuple[str, str]]) -> list[list[int]]:
        """Tokenise (title, text) pairs as `<s> title / text`, or as `<s> text` without a title; not truncated.

        Where both are empty there is no passage, and nothing of the template.
        """
        titled = templates.split_at_special_tokens(self.passage_template, self.tokenizer)
        untitled: templates.Pieces = [" {text}"] if self.passage_template.startswith(" ") else templates.PLAIN
        untitled = untitled if "{title}" in self.passage_template else titled
        rows = [
            # The question template, which follows, usually begins with a space.
            templates.fill_single_spaced(titled if title else untitled, following=" ", title=_unquote(title), text=text)
            for title, text in texts
        ]
        encoded = templates.encode(self.tokenizer, rows, self.is_passage_behind_text)
        return [
            [*self.passage_start, *ids] if title or text else self.empty_passage
            for ids, (title, text) in zip(encoded, texts, strict=True)
        ]

    def prompts(self, questions: Sequence[str]) -> list[list[int]]:
        """Tokenise questions as ` // question </s>`, or with another `prompt_end`; not truncated.

        `PASSAGE` stands where the template has a `{passage}`.
        """
        lead, passage, rest = self.question_template.rpartition("{passage}")
        prompts = [[*ids, *self.prompt_end] for ids in self._filled(rest, questions)]
        if not passage:
            return prompts
        leads = self._filled(lead, questions, self._has_text_in_front)
        return [[*ids, PASSAGE, *prompt] for ids, prompt in zip(leads, prompts, strict=True)]

    def truncate(self, prompt: list[int], max_length: int) -> list[int]:
        """A tokenised question cut to `max_length`: the question loses its end, wherever it stands."""
        if len(prompt) <= max_length:
            return prompt
        lead, passage, rest = self.question_template.rpartition("{passage}")
        at = prompt.index(PASSAGE) + 1 if passage else 0
        kept, excess, copies = [], len(prompt) - max_length, sum("{question}" in part for part in (lead, rest))
        for ids, template, end in ((prompt[:at], lead, 1), (prompt[at:], rest, len(self.prompt_end))):
            _, question, behind = template.rpartition("{question}")
            if question:
                lost = -(-excess // copies)
                excess, copies = excess - lost, copies - 1
                ids = truncate(ids, len(ids) - lost, end + len(self._filled(behind, [""])[0]))
            kept += ids
        return kept

    def targets(self, answers: Sequence[str]) -> list[list[int]]:
        """Tokenise answers as ` answer </s>`."""
        return [[*ids, self.eos] for ids in self._encode([self._answer(answer) for answer in answers])]

    def prefixes(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokenise prefixes of answers as ` text`; an empty text has no tokens."""
        return self._encode([self._answer(text.strip()) if text.strip() else "" for text in texts])

    def spellings(self, word: str) -> list[tuple[int, ...]]:
        """The tokens of a word behind a space and without one, where they differ: both may stand in an answer."""
        return list(dict.fromkeys(tuple(ids) for ids in self._encode([f" {word.strip()}", word.strip()]) if ids))

    def text(self, ids: Iterable[int]) -> str:
        """Decode generated ids, without special tokens."""
        return self.tokenizer.decode([int(i) for i in ids], skip_special_tokens=True).strip()

    def token(self, id: int) -> str:
        """A token by its id. Raises `ValueError` for an unknown id."""
        token = self.tokenizer.id_to_token(id)
        if token is None:
            raise ValueError(f"{id} is no token of {self!r}")
        return token

    def _filled(self, template: str, questions: Sequence[str], goes_on: bool = True) -> list[list[int]]:
        pieces = templates.split_at_special_tokens(template, self.tokenizer)
        rows = [templates.fill_single_spaced(pieces, question=question) for question in questions]
        return templates.encode(self.tokenizer, rows, goes_on)

    def _answer(self, text: str) -> str:
        return self.answer_template.replace("{answer}", text)

    def _encode(self, texts: list[str]) -> list[list[int]]:
        return templates.encode(self.tokenizer, [[text] for text in texts], goes_on=True)


def read_generator_tokenizer(path: Path, special: SpecialTokens = DEFAULT_SPECIAL_TOKENS) -> GeneratorTokenizer:
    """Read a generator's tokenizer from its tokenizer.json."""
    return generator_tokenizer(read_tokenizer(path), str(path), special)


def generator_tokenizer(
    tokenizer: Tokenizer, source: str, special: SpecialTokens = DEFAULT_SPECIAL_TOKENS
) -> GeneratorTokenizer:
    """Make a `GeneratorTokenizer`; `source` names the tokenizer in errors. Raises `InputError` for missing tokens."""
    ids = {}
    for token in special.needed:
        id = tokenizer.token_to_id(token)
        if id is None:
            raise InputError(f"{source}: no token {token}; give a tokenizer with {', '.join(special.needed)}")
        ids[token] = id
    bos = None if special.bos is None else ids[special.bos]
    pad, eos, start = ids[special.pad], ids[special.eos], ids[special.start]
    return GeneratorTokenizer(ignore_special_tokens_in_text(tokenizer), bos, pad, eos, start, prompt_end=(eos,))


def read_tokenizer(path: Path) -> Tokenizer:
    """Read a tokenizer.json; see `ignore_special_tokens_in_text`."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a folder that holds a tokenizer.json")
    try:
        return ignore_special_tokens_in_text(Tokenizer.from_file(str(path)))
    except Exception as error:  # the Rust side raises plain Exception
        raise InputError(f"{path}: not a readable tokenizer ({error}); copy or download it again") from None


def ignore_special_tokens_in_text(tokenizer: Tokenizer) -> Tokenizer:
    """Turn off padding and truncation, and encode special tokens in a text as ordinary text.

    A document that contains `</s>`, or a question that contains `[SEP]`, does not end a sequence. Tokens that were
    added as ordinary words remain tokens.
    """
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.encode_special_tokens = True  # means: as ordinary text; tokenizer.json does not store it
    # A model whose vocabulary has them (Unigram, whole words) would still find them: they are split in two before it.
    if remaining := [token for token in _special_tokens_in_text(tokenizer) if len(token) > 1]:
        positions = "|".join(f"(?<={re.escape(token[0])})(?={re.escape(token[1:])})" for token in remaining)
        split = pre_tokenizers.Split(Regex(positions), "isolated")
        before = [] if tokenizer.pre_tokenizer is None else [tokenizer.pre_tokenizer]
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*before, split])
    return tokenizer


def _special_tokens_in_text(tokenizer: Tokenizer) -> list[str]:
    """The special tokens that the tokenizer still finds in a text that contains them."""
    special = {token.content: i for i, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    texts = [text for token in special for text in (token, f"{token} a{token}")]
    encoded = zip(texts, tokenizer.encode_batch(texts, add_special_tokens=False), strict=True)
    found = {(i, text[slice(*span)]) for text, each in encoded for i, span in zip(each.ids, each.offsets, strict=True)}
    return [token for token, i in special.items() if (i, token) in found]


def train_generator_tokenizer(
    texts: Iterable[str], size: int, special: SpecialTokens = DEFAULT_SPECIAL_TOKENS
) -> GeneratorTokenizer:
    """Train a byte-level BPE in which every digit is a token, so that a model can copy numbers."""
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
    # Not used here, where pieces are tokenised; other libraries expect the tokenizer to add the special tokens.
    template = " ".join(each for each in (special.bos, "$A", special.eos) if each)
    ids = [(token, tokenizer.token_to_id(token)) for token in (special.bos, special.eos) if token]
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=ids)
    return generator_tokenizer(tokenizer, "the new vocabulary", special)


def _unquote(title: str) -> str:
    return title.removeprefix('"').removesuffix('"')


def truncate(ids: list[int], max_length: int, end: int = 1) -> list[int]:
    """Token ids cut to `max_length`; the last `end` of them, which end a text, stay."""
    return ids if len(ids) <= max_length else [*ids[: max(0, max_length - end)], *ids[len(ids) - end :]]


def pad(rows: Sequence[Sequence[int] | np.ndarray], length: int, fill: int, dtype: type = np.int32) -> Tokens:
    """Pad rows on the right to arrays on the host; no row may be longer than `length`."""
    ids = np.full((len(rows), length), fill, dtype)
    for row, tokens in zip(ids, rows, strict=True):
        row[: len(tokens)] = tokens
    return Tokens(host(ids), host(np.asarray([len(tokens) for tokens in rows], np.int32)))


def fingerprint(tokenizer: Tokenizer) -> str:
    """A short digest of everything that encoding and decoding depend on."""
    return hashlib.sha256(tokenizer.to_str().encode()).hexdigest()[:16]
