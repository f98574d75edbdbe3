"""Whatever AutoTokenizer makes of a folder's files, encoding and decoding, is made here; saved, it stays the same."""

import random
import shutil
import socket
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from rag_jax.data.tokenizers import fingerprint
from rag_jax.hub import tokenizers
from rag_jax.hub.configs import read_config
from rag_jax.hub.tokenizers import Stored
from tokenizer_folders import FOLDERS

TEXTS = [
    "who's the king of france, isn't it what's-his-name?",
    "The cat sat. the CATS, the cats !",
    "Café, cafe ; Ärger naïve",
    " two  spaces ",
    "",
    "東京 東 🙂 \t\n a",
    "I'm sure they 've gone ; he's n't , is it ? ' quoted '",
    "Paris-sud CAT CATS <gap> cat",
    '"quoted" titles // and / slashes',
]
SPELT = ["a </s> b<s>", "[CLS] what [SEP][PAD]", "x<mask> y <extra_id_1>", "[Q] who [D]", "[P] <unk> [UNK] [MASK]"]


@pytest.fixture(params=FOLDERS)
def folder(request, tmp_path) -> Path:
    (tmp_path / "theirs").mkdir()
    FOLDERS[request.param](tmp_path / "theirs")
    return tmp_path / "theirs"


def read(folder: Path) -> Stored:
    found = tokenizers.read(folder, read_config(folder))
    assert found is not None
    return found


def theirs(folder: Path) -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(folder)


def sequences(tokenizer: PreTrainedTokenizerFast) -> list[list[int]]:
    """What decoders may be given: encoded texts, and tokens in any order."""
    draw = random.Random(0)
    found = [[draw.randrange(len(tokenizer)) for _ in range(draw.randrange(12))] for _ in range(200)]
    return [*tokenizer(TEXTS)["input_ids"], *found]


def test_there_are_enough_of_them():
    assert len(FOLDERS) >= 20


def test_encoding_and_decoding_are_transformers_own(folder):
    auto, ours = theirs(folder), read(folder).tokenizer
    assert [each.ids for each in ours.encode_batch(TEXTS)] == auto(TEXTS)["input_ids"]
    bare = [each.ids for each in ours.encode_batch(TEXTS, add_special_tokens=False)]
    assert bare == auto(TEXTS, add_special_tokens=False)["input_ids"]
    pairs = auto(TEXTS, TEXTS[::-1], return_token_type_ids=True)
    found = ours.encode_batch(list(zip(TEXTS, TEXTS[::-1], strict=True)))
    assert [each.ids for each in found] == pairs["input_ids"]
    assert [each.type_ids for each in found] == pairs["token_type_ids"]
    ids = sequences(auto)
    for skip in (True, False):
        assert ours.decode_batch(ids, skip_special_tokens=skip) == auto.batch_decode(ids, skip_special_tokens=skip)


def test_what_is_saved_here_is_the_same_tokenizer_there(folder, tmp_path):
    found = read(folder)
    tokenizers.write(tmp_path / "ours", found)
    shutil.copy(folder / "config.json", tmp_path / "ours")
    before, after = theirs(folder), theirs(tmp_path / "ours")
    texts = TEXTS + SPELT
    for asked in ({}, {"padding": True, "truncation": True}, {"text_pair": texts[::-1], "padding": True}):
        assert dict(before(texts, **asked)) == dict(after(texts, **asked))
    ids = sequences(before)
    for skip in (True, False):
        texts = (each.batch_decode(ids, skip_special_tokens=skip) for each in (before, after))
        assert next(texts) == next(texts)
    assert before.special_tokens_map == after.special_tokens_map
    assert before.all_special_ids == after.all_special_ids
    assert before.model_max_length == after.model_max_length


def test_it_is_the_same_again_here_whoever_saved_it(folder, tmp_path):
    found = read(folder)
    tokenizers.write(tmp_path / "ours", found)
    theirs(folder).save_pretrained(tmp_path / "again")
    for place in ("ours", "again"):
        shutil.copy(folder / "config.json", tmp_path / place)
        again = read(tmp_path / place)
        assert fingerprint(again.tokenizer) == fingerprint(found.tokenizer)
        assert again.settings == found.settings
    found.tokenizer.save(str(tmp_path / "tokenizer.json"))  # as a run keeps it
    assert fingerprint(tokenizers.read_tokenizer(tmp_path / "tokenizer.json")) == fingerprint(found.tokenizer)


def test_no_network_is_asked(folder, monkeypatch):
    def refuse(*_):
        raise AssertionError("a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    read(folder)
