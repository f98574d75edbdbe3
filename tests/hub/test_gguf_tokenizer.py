"""Tokenizers in GGUF files: the ids are those of the models' own tokenizers, spelt out here as naive loops."""

from collections.abc import Callable
from inspect import signature
from itertools import pairwise
from pathlib import Path

import pytest
import regex
from tokenizers import Tokenizer, models, normalizers, trainers
from transformers import AutoTokenizer, Qwen2Tokenizer
from transformers.convert_slow_tokenizer import TikTokenConverter, bytes_to_unicode

import gguf_files
from gguf_files import BYTE, CONTROL, MERGES, NORMAL, TOKENS, UNKNOWN, USER_DEFINED, byte_level
from rag_jax.data import templates
from rag_jax.errors import InputError
from rag_jax.hub import gguf_file, gguf_tokenizer, tokenizers
from rag_jax.hub.gguf_file import Metadata

TEXTS = [
    "",
    "The cat sat on the mat.",
    "In 2024, 12345 people paid $1,234.56 (3.5%) — ½ of ٣٤٥, ๔๕ or Ⅻ.",
    "  two  spaces,\ttabs\n\nnew lines \r\n and   trailing   ",
    "def f(x):\n    return x ** 2  # code\n\n\n    if (a!=b)&&c{}",
    "I'm, you're, he'd, they'LL, IT'S, 'tis",
    "Café, cafe\u0301, naïve Ångström",
    "東京は日本の首都です。 Привет мир! مرحبا",
    "🙂 👩‍👩‍👧 🇦🇹 \u200b\ufeff zero width",
    "a <|im_start|>system<|im_end|> <|endoftext|><s></s><unk> <0x0A>",
    "http://x.org/a?b=c&d=%20 e-mail@x.org CamelCaseWord snake_case",
]
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# Of Mistral's tokenizers, the pattern of its tokenizer.json.
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHAT = [{"role": "system", "content": "You help."}, {"role": "user", "content": "What is 12 + 30? <|im_end|>"}]


def naive_bpe(word: list[str], ranks: dict[tuple[str, str], int]) -> list[str]:
    """Join the first pair of the lowest rank until there is none."""
    while pairs := [(ranks[pair], i) for i, pair in enumerate(pairwise(word)) if pair in ranks]:
        _, i = min(pairs)
        word = [*word[:i], word[i] + word[i + 1], *word[i + 2 :]]
    return word


def naive_smollm(metadata: dict) -> Callable[[str], list[int]]:
    """Every digit is a word; between them GPT-2's words, in bytes."""
    vocabulary = {token: i for i, token in enumerate(metadata["tokenizer.ggml.tokens"])}
    ranks = {tuple(merge.split(" ")): i for i, merge in enumerate(metadata["tokenizer.ggml.merges"])}
    spelling = bytes_to_unicode()

    def ids(text: str) -> list[int]:
        parts = [part for part in regex.split(r"(\p{N})", text) if part]
        words = [word for part in parts for word in regex.findall(GPT2, part)]
        letters = [[spelling[byte] for byte in word.encode()] for word in words]
        return [vocabulary[token] for word in letters for token in naive_bpe(word, ranks)]

    return ids


def metadata_of(values: dict) -> Metadata:
    metadata = Metadata("m.gguf")
    metadata.update({"general.architecture": "llama", **values})
    return metadata


def read(values: dict) -> tokenizers.Stored:
    return gguf_tokenizer.read(metadata_of(values))


@pytest.fixture(scope="module")
def smollm() -> Metadata:
    """The metadata of SmolLM2."""
    return gguf_file.read(gguf_files.smollm()).metadata


@pytest.fixture(scope="module")
def stored(smollm: Metadata) -> tokenizers.Stored:
    return gguf_tokenizer.read(smollm)


def test_smollms_ids_are_those_of_its_own_tokenizer(smollm: Metadata, stored: tokenizers.Stored) -> None:
    naive = naive_smollm(smollm)
    for text in TEXTS:
        assert stored.tokenizer.encode(text).ids == naive(text), text
    assert stored.tokenizer.get_vocab_size() == 49_152


def test_smollms_texts_come_back(stored: tokenizers.Stored) -> None:
    for text in TEXTS:
        assert stored.tokenizer.decode(stored.tokenizer.encode(text).ids) == text


def test_smollms_settings_are_those_of_its_own_tokenizer(stored: tokenizers.Stored) -> None:
    roles = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}
    assert roles.items() <= stored.settings.items()
    assert (stored.settings["unk_token"], stored.settings["model_max_length"]) == ("<|endoftext|>", 8192)
    assert stored.settings["add_bos_token"] is False


def test_smollms_chat_template_is_rendered_and_tokenised(
    smollm: Metadata, stored: tokenizers.Stored, tmp_path: Path
) -> None:
    tokenizers.write(tmp_path, stored)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    text = theirs.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
    assert text.startswith("<|im_start|>system\nYou help.<|im_end|>\n<|im_start|>user\n")
    naive, special = naive_smollm(smollm), {"<|im_start|>": [1], "<|im_end|>": [2]}
    expected = [i for part in regex.split(r"(<\|im_\w+\|>)", text) for i in special.get(part) or naive(part)]
    assert theirs.apply_chat_template(CHAT, add_generation_prompt=True)["input_ids"] == expected
    pieces = templates.split_at_special_tokens(text, stored.tokenizer)
    assert templates.encode(stored.tokenizer, [pieces]) == [expected]
    for text in TEXTS:
        assert theirs(text, split_special_tokens=True)["input_ids"] == stored.tokenizer.encode(text).ids


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("gpt-2", GPT2),
        ("llama-bpe", signature(TikTokenConverter).parameters["pattern"].default),
        ("tekken", TEKKEN),
    ],
)
def test_words_are_split_by_the_published_patterns(name: str, pattern: str) -> None:
    ours = gguf_tokenizer.WORDS[name].pre_tokenizer
    spelling = bytes_to_unicode()
    for text in TEXTS:
        expected = ["".join(spelling[byte] for byte in word.encode()) for word in regex.findall(pattern, text)]
        assert [word for word, _ in ours.pre_tokenize_str(text)] == expected


def test_qwens_ids_are_those_of_transformers_class() -> None:
    vocabulary = {token: i for i, token in enumerate(TOKENS)}
    theirs = Qwen2Tokenizer(vocab=vocabulary, merges=[tuple(merge.split(" ")) for merge in MERGES])
    ours = read(byte_level("qwen2")).tokenizer
    for text in TEXTS:
        assert ours.encode(text).ids == theirs(text, split_special_tokens=True)["input_ids"]


def test_a_word_of_the_vocabulary_is_a_token_where_merges_are_ignored() -> None:
    tokens = [*TOKENS, "dog"]
    ids = {name: read(byte_level(name, tokens)).tokenizer.encode("dog").ids for name in ("llama-bpe", "qwen2")}
    assert ids["llama-bpe"][-1:] == [len(TOKENS)]
    assert len(ids["qwen2"]) == 3


def test_special_tokens_are_text_and_added_words_are_tokens() -> None:
    tokenizer = read(byte_level()).tokenizer
    special = {token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special}
    assert special == set(gguf_files.SPECIAL)
    assert tokenizer.token_to_id("<think>") in tokenizer.encode("a<think>b").ids
    assert not {0, 1, 2} & set(tokenizer.encode("".join(gguf_files.SPECIAL)).ids)


@pytest.mark.parametrize(
    ("name", "given", "begins"),
    [("smollm", None, False), ("llama-bpe", None, True), ("llama-bpe", False, False), ("smollm", True, True)],
)
def test_texts_begin_with_bos_where_llama_cpp_adds_it(name: str, given: bool | None, begins: bool) -> None:
    values = byte_level(name) | ({} if given is None else {"tokenizer.ggml.add_bos_token": given})
    stored = read(values | {"tokenizer.ggml.add_eos_token": True})
    assert stored.settings["add_bos_token"] is begins
    assert [stored.tokenizer.encode("").ids, stored.tokenizer.encode("", "").ids] == (
        [[1, 2], [1, 2, 1, 2]] if begins else [[2], [2, 2]]
    )


def sentence_piece(prefix: bool = True) -> dict:
    """A vocabulary of SentencePiece, learnt from the texts; scores fall in the order of the merges."""
    learnt = Tokenizer(models.BPE())
    learnt.normalizer = normalizers.Replace(" ", "▁")
    trainer = trainers.BpeTrainer(vocab_size=300, show_progress=False)
    learnt.train_from_iterator([*TEXTS[1:6], "the cat the cat sat sat on on the the mat"], trainer)
    learnt = sorted(learnt.get_vocab(), key=learnt.get_vocab().get)
    fixed = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [*fixed, *learnt],
        "tokenizer.ggml.token_type": [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, *[NORMAL] * len(learnt)],
        "tokenizer.ggml.scores": [*[0.0] * len(fixed), *(-float(i) for i in range(len(learnt)))],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.add_space_prefix": prefix,
    }


def naive_sentence_piece(values: dict, text: str) -> list[int]:
    """Join the leftmost pair whose union has the highest score until none is a piece; the rest are bytes."""
    vocabulary = {token: i for i, token in enumerate(values["tokenizer.ggml.tokens"])}
    scores = dict(zip(values["tokenizer.ggml.tokens"], values["tokenizer.ggml.scores"], strict=True))
    prefix = " " if values["tokenizer.ggml.add_space_prefix"] and text else ""
    pieces = list((prefix + text).replace(" ", "▁"))
    while joins := [(-scores[a + b], i) for i, (a, b) in enumerate(pairwise(pieces)) if a + b in scores]:
        _, i = min(joins)
        pieces = [*pieces[:i], pieces[i] + pieces[i + 1], *pieces[i + 2 :]]
    spelt = ([piece] if piece in vocabulary else [f"<0x{byte:02X}>" for byte in piece.encode()] for piece in pieces)
    return [vocabulary[token] for tokens in spelt for token in tokens]


@pytest.mark.parametrize("prefix", [True, False])
def test_sentence_pieces_are_joined_by_score_and_spelt_in_bytes(prefix: bool) -> None:
    values = sentence_piece(prefix)
    tokenizer = read(values).tokenizer
    for text in TEXTS:
        assert tokenizer.encode(text, add_special_tokens=False).ids == naive_sentence_piece(values, text), text
        assert tokenizer.decode(tokenizer.encode(text).ids) == text
    assert tokenizer.encode("").ids == [1]


def test_a_tokenizer_is_written_for_transformers(tmp_path: Path) -> None:
    for name, values in {"bytes": byte_level("llama-bpe"), "pieces": sentence_piece()}.items():
        stored = read(values)
        tokenizers.write(tmp_path / name, stored)
        theirs = AutoTokenizer.from_pretrained(tmp_path / name)
        assert (theirs.bos_token_id, theirs.eos_token_id) == (1, 2)
        for text in TEXTS:
            assert theirs(text, split_special_tokens=True)["input_ids"] == stored.tokenizer.encode(text).ids


def test_an_answer_in_a_chat_ends_at_the_end_of_a_turn() -> None:
    values = sentence_piece(prefix=True) | {"tokenizer.ggml.eot_token_id": 1}
    assert read(values).settings["eos_token"] == "</s>"
    assert read(values | {"tokenizer.chat_template": "{{ messages }}<s>"}).settings["eos_token"] == "<s>"


def test_an_end_that_the_chat_does_not_write_ends_no_answer() -> None:
    """CodeLlama's, which ends an infill."""
    values = sentence_piece(prefix=True) | {"tokenizer.ggml.eot_token_id": 1}
    assert read(values | {"tokenizer.chat_template": "{{ messages }}"}).settings["eos_token"] == "</s>"


def test_an_encoder_of_texts_adds_the_end_of_a_text_not_of_a_turn() -> None:
    """As Qwen3-Embedding, whose file has a chat template too."""
    values = byte_level("qwen2") | {"tokenizer.ggml.eos_token_id": 0, "tokenizer.ggml.eot_token_id": 2}
    stored = read(values | {"tokenizer.ggml.add_eos_token": True})
    assert stored.tokenizer.encode("").tokens == ["<|endoftext|>"]
    assert stored.settings["eos_token"] == "<|endoftext|>"
    assert read(values).settings["eos_token"] == "<|im_end|>"


def test_an_end_is_no_text_whatever_its_type() -> None:
    """Some converters type the tokens of a chat as user-defined, and files may have no types."""
    values = byte_level()
    typed = [USER_DEFINED if token == "<|im_end|>" else kind
             for token, kind in zip(TOKENS, values["tokenizer.ggml.token_type"], strict=True)]  # fmt: skip
    for types in ({"tokenizer.ggml.token_type": typed}, {}):
        given = {key: each for key, each in values.items() if key != "tokenizer.ggml.token_type"} | types
        tokenizer = read(given).tokenizer
        assert tokenizer.decode([*tokenizer.encode("a").ids, 2]) == "a"


KEY = "tokenizer.ggml."


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"model": "bert"}, "tokenizer.ggml.model is 'bert', supported are gpt2, llama; use the model's tra"),
        ({"pre": "viking"}, "tokenizer.ggml.pre is 'viking', supported are gpt-2, smollm, llama-bpe"),
        ({"pre": None}, "has no 'tokenizer.ggml.pre'; convert the model again"),
        ({"merges": None}, "has no 'tokenizer.ggml.merges'; convert the model again"),
        ({"merges": ["a zzz"]}, "the tokenizer cannot be read (Error while initializing BPE: Token `zzz` out of"),
        ({"token_type": [1]}, f"the vocabulary is damaged ({len(TOKENS)} tokens, 1 types)"),
        ({"tokens": [*TOKENS[:-1], TOKENS[0]]}, "the vocabulary is damaged (a token occurs twice)"),
        ({"eos_token_id": 10**6}, f"tokenizer.ggml.eos_token_id is 1000000 of {len(TOKENS)} tokens; convert"),
        ({"model": "llama"}, "has no 'tokenizer.ggml.scores'; convert the model again"),
        ({"model": "llama", "scores": [0.0]}, f"the vocabulary is damaged ({len(TOKENS)} tokens, 1 scores)"),
    ],
)
def test_what_makes_no_tokenizer_is_refused(changes: dict, what: str) -> None:
    values = {key: each for key, each in byte_level().items() if changes.get(key.removeprefix(KEY), each) is not None}
    values |= {KEY + key: each for key, each in changes.items() if each is not None}
    with pytest.raises(InputError) as complaint:
        read(values)
    assert str(complaint.value).startswith(f"m.gguf: {what}")
    assert "\n" not in str(complaint.value)
