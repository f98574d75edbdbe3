"""Which of a folder's files are a tokenizer, which are refused; see test_tokenizer_folders for what is made of them."""

import json

import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer

from rag_jax.errors import InputError
from rag_jax.hub import tokenizers
from rag_jax.hub.tokenizers import Stored
from tokenizer_folders import PIECES, changed, new_bert, old_bart, old_bert

TEXTS = ["The cat sat.", "the CATS", "Café, cafe", " two  spaces ", "", "a <mask> [MASK] b", "東京 🙂", "</s><s>"]
BERT, BART = {"model_type": "bert"}, {"model_type": "bart"}


def ids(tokenizer: Tokenizer) -> list[list[int]]:
    return [tokenizer.encode(text).ids for text in TEXTS]


def refusal(folder, model=BERT) -> str:
    with pytest.raises(InputError) as complaint:
        tokenizers.read(folder, model)
    message = str(complaint.value)
    assert "\n" not in message
    assert message.startswith(str(folder))
    return message


def test_a_folder_without_a_tokenizer_has_none(tmp_path):
    assert tokenizers.read(tmp_path, BART) is None  # AutoTokenizer makes one up
    assert tokenizers.read(tmp_path / "nowhere", {}) is None


@pytest.mark.parametrize(("older", "model"), [(old_bert, BERT), (old_bart, BART)])
def test_roles_are_kept(tmp_path, older, model):
    older(tmp_path)
    tokenizers.write(tmp_path / "new", tokenizers.read(tmp_path, model))
    again = AutoTokenizer.from_pretrained(tmp_path / "new")
    bert = model is BERT
    assert (again.pad_token, again.mask_token) == (("[PAD]", "[MASK]") if bert else ("<pad>", "<mask>"))
    assert (again.bos_token, again.eos_token) == ((None, None) if bert else ("<s>", "</s>"))
    assert ("token_type_ids" in again(TEXTS)) == bert


def test_a_tokenizer_that_was_learnt_here_gets_its_roles_by_name(tmp_path):
    tokenizers.write(tmp_path, Stored(bart(PIECES), {"model_input_names": ["input_ids"], "model_max_length": 9}))
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert (again.pad_token, again.eos_token, again.cls_token, again.model_max_length) == ("<pad>", "</s>", "<s>", 9)
    assert list(again("the")) == ["input_ids"]


def test_todays_file_is_read_before_the_older_ones(tmp_path):
    old_bert(tmp_path)
    (tmp_path / "config.json").unlink()
    tokenizer = bart(PIECES)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    assert ids(tokenizers.read(tmp_path, {}).tokenizer) == ids(tokenizer)


def test_stored_padding_and_truncation_are_dropped(tmp_path):
    tokenizer = bart(PIECES)
    tokenizer.encode_special_tokens = True
    before = ids(tokenizer)
    tokenizer.enable_padding(length=30)
    tokenizer.enable_truncation(3)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert ids(tokenizers.read(tmp_path, {}).tokenizer) == before != ids(tokenizer)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"version": "1.0"}'])
def test_a_tokenizer_that_cannot_be_read_is_refused(tmp_path, text):
    (tmp_path / "tokenizer.json").write_text(text)
    assert "tokenizer.json: not a readable tokenizer" in refusal(tmp_path, {})
    assert "the tokenizer cannot be read (" in refusal(tmp_path)


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
    refusal(tmp_path, BERT if older is old_bert else BART)


def test_the_file_that_is_missing_is_named(tmp_path):
    old_bart(tmp_path)
    assert "cannot be read (no vocab.txt); copy or download it again" in refusal(tmp_path, BERT)


@pytest.mark.parametrize(
    "settings",
    [
        {"tokenizer_class": "RagRetriever"},  # AutoTokenizer calls any class of transformers that is named
        {"tokenizer_class": "AutoModel"},
        {"tokenizer_class": "BertJapaneseTokenizer"},  # not of the tokenizers library
        {"tokenizer_class": "WhisperTokenizer"},  # decodes in a way of its own
        {"tokenizer_class": 5},
        {"tokenizer_class": "Foreign", "auto_map": {"AutoTokenizer": ["foreign.Foreign", "foreign.Foreign"]}},
    ],
)
def test_nothing_but_a_plain_tokenizer_is_run(tmp_path, settings):
    new_bert(tmp_path / "bert")
    changed(tmp_path / "bert", "tokenizer_config.json", **settings)
    (tmp_path / "bert" / "foreign.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Foreign: pass\n")
    (tmp_path / "bert" / "pytorch_model.bin").write_bytes(b"no weights")
    refusal(tmp_path / "bert", {"model_type": "bert"} if "auto_map" not in settings else {})
    assert not (tmp_path / "ran").exists()


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
        assert tokenizers.fit_to_vocabulary(tokenizer, rows, "here") is tokenizer


def test_a_mask_without_a_row_is_dropped_and_its_text_is_a_text():
    tokenizer = bart(PIECES)
    assert tokenizer.encode("<mask>").ids == [len(PIECES)]
    fit_to_vocabulary = tokenizers.fit_to_vocabulary(tokenizer, len(PIECES), "here")
    assert fit_to_vocabulary.get_vocab_size() == len(PIECES)
    assert fit_to_vocabulary.encode("<mask>").tokens == list("<mask>")
    tokenizer.encode_special_tokens = True
    plain = [text for text in TEXTS if "<mask>" not in text]
    assert [fit_to_vocabulary.encode(text).ids for text in plain] == [tokenizer.encode(text).ids for text in plain]


def test_special_tokens_beside_the_vocabulary_are_dropped_too():
    tokenizer = bart(PIECES, mask=False)
    tokenizer.add_special_tokens(["<mask>", "<extra>"])
    assert tokenizers.fit_to_vocabulary(tokenizer, len(PIECES), "here").get_vocab_size() == len(PIECES)
    assert tokenizers.fit_to_vocabulary(tokenizer, len(PIECES) + 1, "here").token_to_id("<mask>") == len(PIECES)


def test_what_was_dropped_is_not_added_again_where_it_is_saved(tmp_path):
    old_bart(tmp_path)
    changed(tmp_path, "special_tokens_map.json", additional_special_tokens=["<extra>"])
    found = tokenizers.read(tmp_path, BART)
    assert "<extra>" in found.settings["extra_special_tokens"]
    tokenizers.write(
        tmp_path / "new", Stored(tokenizers.fit_to_vocabulary(found.tokenizer, len(PIECES), "here"), found.settings)
    )
    again = AutoTokenizer.from_pretrained(tmp_path / "new")
    assert (len(again), again.mask_token, again.pad_token) == (len(PIECES), None, "<pad>")


@pytest.mark.parametrize("more", [AddedToken("word", special=False), AddedToken("[MASK]", special=True)])
def test_a_tokenizer_of_another_vocabulary_is_refused(more):
    tokenizer = bart(PIECES)
    tokenizer.add_tokens([more])
    size = len(PIECES)
    what = rf"^here: a tokenizer of {size + 2} tokens \(ids up to \d+\), a generator of {size}; use the tok"
    with pytest.raises(InputError, match=what):
        tokenizers.fit_to_vocabulary(tokenizer, size, "here")


def test_an_id_beyond_the_vectors_is_refused_whatever_the_number_of_tokens():
    stored = json.loads(bart(PIECES).to_str())
    word = next(token for token in stored["model"]["vocab"] if "<" not in token)
    stored["model"]["vocab"][word] = len(PIECES) + 7
    gap = Tokenizer.from_str(json.dumps(stored))
    with pytest.raises(InputError, match=rf"^here: a tokenizer of .* \(ids up to {len(PIECES) + 7}\), a generator of"):
        tokenizers.fit_to_vocabulary(gap, len(PIECES), "here")


def test_words_without_rows_are_refused():
    with pytest.raises(InputError, match="use the tokenizer that was saved with the weights"):
        tokenizers.fit_to_vocabulary(bart(PIECES), len(PIECES) - 1, "here")


def test_a_tokenizer_whose_vocabulary_is_a_list_is_refused():
    tokenizer = Tokenizer(models.Unigram([("<unk>", 0.0), ("a", -1.0), ("<mask>", -2.0)], 0, False))
    with pytest.raises(InputError, match="use the tokenizer that was saved with the weights"):
        tokenizers.fit_to_vocabulary(tokenizer, 2, "here")
