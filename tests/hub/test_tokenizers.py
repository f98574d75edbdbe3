"""A checkpoint's tokenizer gives the ids that transformers' own gives, whichever files it is in."""

import json
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, BartTokenizer, BertTokenizer

from rag_jax.errors import InputError
from rag_jax.hub import tokenizers

TEXTS = ["The cat sat.", "the CATS", "Café, cafe", " two  spaces ", "", "a <mask> [MASK] b", "東京 🙂", "</s><s>"]
WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] the The ##s cat café cafe sat . , a b two"
BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
PIECES = ["<s>", "<pad>", "</s>", "<unk>", *BYTES, "Ġt", "he", "Ġthe", "at"]
MERGES = "#version: 0.2\nĠ t\nh e\nĠt he\na t\n"


def old_bert(folder: Path, **settings) -> None:
    """BERT's tokenizer as it was saved before there was a tokenizer.json."""
    (folder / "vocab.txt").write_text(WORDS.replace(" ", "\n") + "\n")
    if settings:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def old_bart(folder: Path) -> None:
    """BART's tokenizer as it was saved before there was a tokenizer.json."""
    (folder / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate([*PIECES, "<mask>"])}))
    (folder / "merges.txt").write_text(MERGES)


def ids(tokenizer: Tokenizer) -> list[list[int]]:
    return [tokenizer.encode(text).ids for text in TEXTS]


def refusal(folder: Path) -> str:
    with pytest.raises(InputError) as complaint:
        tokenizers.read(folder)
    message = str(complaint.value)
    assert "\n" not in message
    assert message.startswith(str(folder))
    return message


def test_a_folder_without_a_tokenizer_has_none(tmp_path):
    assert tokenizers.read(tmp_path) is None
    assert tokenizers.read(tmp_path / "nowhere") is None


@pytest.mark.parametrize("settings", [{}, {"do_lower_case": True}, {"do_lower_case": False}])
def test_berts_older_files_give_the_ids_of_transformers(tmp_path, settings):
    old_bert(tmp_path, **settings)
    found = tokenizers.read(tmp_path)
    assert ids(found) == BertTokenizer.from_pretrained(tmp_path)(TEXTS)["input_ids"]
    lower = settings.get("do_lower_case", True)
    words = "[CLS] the cat sat . [SEP]" if lower else "[CLS] The cat sat . [SEP]"
    assert found.encode("The cat sat.").tokens == words.split()


def test_barts_older_files_give_the_ids_of_transformers(tmp_path):
    old_bart(tmp_path)
    found = tokenizers.read(tmp_path)
    assert ids(found) == BartTokenizer.from_pretrained(tmp_path)(TEXTS)["input_ids"]
    assert found.encode(" the cat<mask>").tokens == ["<s>", "Ġthe", "Ġ", "c", "at", "<mask>", "</s>"]


@pytest.mark.parametrize("older", [old_bert, old_bart])
def test_what_is_written_of_an_older_tokenizer_is_read_by_transformers(tmp_path, older):
    older(tmp_path)
    found = tokenizers.read(tmp_path)
    tokenizers.write(tmp_path / "new", found)
    again = AutoTokenizer.from_pretrained(tmp_path / "new")
    assert again(TEXTS)["input_ids"] == ids(found) == ids(tokenizers.read(tmp_path / "new"))
    bert = older is old_bert
    assert (again.pad_token, again.mask_token) == (("[PAD]", "[MASK]") if bert else ("<pad>", "<mask>"))
    assert (again.bos_token, again.eos_token) == ((None, None) if bert else ("<s>", "</s>"))


def test_todays_file_is_read_before_the_older_ones(tmp_path):
    old_bert(tmp_path)
    tokenizer = bart(PIECES)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert ids(tokenizers.read(tmp_path)) == ids(tokenizer)


def test_stored_padding_and_truncation_are_dropped(tmp_path):
    tokenizer = bart(PIECES)
    before = ids(tokenizer)
    tokenizer.enable_padding(length=30)
    tokenizer.enable_truncation(3)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert ids(tokenizers.read(tmp_path)) == before != ids(tokenizer)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"version": "1.0"}'])
def test_a_tokenizer_that_cannot_be_read_is_refused(tmp_path, text):
    (tmp_path / "tokenizer.json").write_text(text)
    assert "tokenizer.json: not a readable tokenizer" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("older", "file", "content"),
    [
        (old_bert, "vocab.txt", b"\xff\xfe"),
        (old_bert, "tokenizer_config.json", b"{"),
        (old_bart, "vocab.json", b"{"),
        (old_bart, "vocab.json", b"[]"),
        (old_bart, "vocab.json", b'{"a": 1}'),
        (old_bart, "merges.txt", None),
        (old_bart, "merges.txt", b"\xff"),
    ],
)
def test_older_files_that_are_damaged_or_missing_are_refused(tmp_path, older, file, content):
    older(tmp_path)
    (tmp_path / file).unlink(missing_ok=True)
    if content is not None:
        (tmp_path / file).write_bytes(content)
    assert "the tokenizer cannot be read (" in refusal(tmp_path)


def bart(vocabulary: list[str], mask: bool = True) -> Tokenizer:
    """A byte-level BPE of these tokens, and `<mask>` behind them."""
    vocab = {piece: i for i, piece in enumerate(vocabulary)}
    if mask:
        vocab["<mask>"] = len(vocab)
    tokenizer = Tokenizer(models.BPE(vocab, [("Ġ", "t"), ("h", "e"), ("Ġt", "he"), ("a", "t")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", *["<mask>"] * mask])
    return tokenizer


def test_a_tokenizer_that_fits_is_left_as_it_is():
    tokenizer = bart(PIECES)
    for rows in (len(PIECES) + 1, len(PIECES) + 100):
        assert tokenizers.fitted(tokenizer, rows, "here") is tokenizer


def test_a_mask_without_a_row_is_dropped_and_its_text_is_a_text():
    tokenizer = bart(PIECES)
    assert tokenizer.encode("<mask>").ids == [len(PIECES)]
    fitted = tokenizers.fitted(tokenizer, len(PIECES), "here")
    assert fitted.get_vocab_size() == len(PIECES)
    assert fitted.encode("<mask>").tokens == list("<mask>")
    plain = [text for text in TEXTS if "<mask>" not in text]
    assert [fitted.encode(text).ids for text in plain] == [tokenizer.encode(text).ids for text in plain]
    assert tokenizer.encode("<mask>").ids == [len(PIECES)]


def test_special_tokens_beside_the_vocabulary_are_dropped_too():
    tokenizer = bart(PIECES, mask=False)
    tokenizer.add_special_tokens(["<mask>", "<extra>"])
    assert tokenizers.fitted(tokenizer, len(PIECES), "here").get_vocab_size() == len(PIECES)
    assert tokenizers.fitted(tokenizer, len(PIECES) + 1, "here").token_to_id("<mask>") == len(PIECES)


@pytest.mark.parametrize("more", [AddedToken("word", special=False), AddedToken("[MASK]", special=True)])
def test_a_tokenizer_of_another_vocabulary_is_refused(more):
    tokenizer = bart(PIECES)
    tokenizer.add_tokens([more])
    size = len(PIECES)
    what = rf"^here: a tokenizer of {size + 2} tokens, a generator of {size}; take the tokenizer that was saved with"
    with pytest.raises(InputError, match=what):
        tokenizers.fitted(tokenizer, size, "here")


def test_words_without_rows_are_refused():
    with pytest.raises(InputError, match="take the tokenizer that was saved with the weights"):
        tokenizers.fitted(bart(PIECES), len(PIECES) - 1, "here")


def test_a_tokenizer_whose_vocabulary_is_a_list_is_refused():
    tokenizer = Tokenizer(models.Unigram([("<unk>", 0.0), ("a", -1.0), ("<mask>", -2.0)], 0, False))
    with pytest.raises(InputError, match="take the tokenizer that was saved with the weights"):
        tokenizers.fitted(tokenizer, 2, "here")
