"""Folders of tokenizers as checkpoints have them, small: which files they are in, and what is set beside them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import BartTokenizer, BertTokenizer, PreTrainedTokenizerFast

SPELT = """
[PAD] [UNK] [CLS] [SEP] [MASK] the The ##s cat café cafe sat . , ! ? ' - a b c n t s m re ve who what is isn it two
king of france paris ##n ##t 東 京 東京 [P] q ##q ##uery
"""
WORDS = SPELT.split()
BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
PIECES = ["<s>", "<pad>", "</s>", "<unk>", *BYTES, "Ġt", "he", "Ġthe", "at"]
MERGES = "#version: 0.2\nĠ t\nh e\nĠt he\na t\n"


def describe(folder: Path, network: str, **settings: Any) -> None:
    """config.json, and tokenizer_config.json where there is something to say."""
    (folder / "config.json").write_text(json.dumps({"model_type": network}))
    if settings:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def old_bert(folder: Path, network: str = "bert", **settings: Any) -> None:
    """BERT's tokenizer as it was saved before there was a tokenizer.json."""
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    describe(folder, network, **settings)


def old_bart(folder: Path, **settings: Any) -> None:
    """BART's tokenizer as it was saved before there was a tokenizer.json."""
    (folder / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate([*PIECES, "<mask>"])}))
    (folder / "merges.txt").write_text(MERGES, encoding="utf-8")
    describe(folder, "bart", **settings)


def new(folder: Path, network: str, kind: type, **settings: Any) -> None:
    """Today's files, as transformers saves them."""
    older = folder.with_name(f"{folder.name}-older")
    older.mkdir(parents=True)
    (old_bart if network == "bart" else old_bert)(older)
    kind.from_pretrained(older, **settings).save_pretrained(folder)
    describe(folder, network)


def new_bert(folder: Path, **settings: Any) -> None:
    new(folder, "bert", BertTokenizer, **settings)


def new_bart(folder: Path, **settings: Any) -> None:
    new(folder, "bart", BartTokenizer, **settings)


def changed(folder: Path, file: str, **values: Any) -> None:
    """Set values in a JSON file, which is there already or not."""
    path = folder / file
    held = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**held, **values}))


def other_case_than_its_json(folder: Path) -> None:
    new_bert(folder)
    changed(folder, "tokenizer_config.json", do_lower_case=False)


def json_alone(folder: Path) -> None:
    new_bert(folder, do_lower_case=False)
    (folder / "tokenizer_config.json").unlink()


def bart_json_alone(folder: Path) -> None:
    new_bart(folder, add_prefix_space=True)
    (folder / "tokenizer_config.json").unlink()


def stored_lengths(folder: Path) -> None:
    """Padding and truncation in tokenizer.json, as sentence-transformers' have them."""
    new_bert(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding(length=12)
    tokenizer.enable_truncation(6)
    tokenizer.save(str(folder / "tokenizer.json"))


def older_added_tokens(folder: Path) -> None:
    old_bert(folder, clean_up_tokenization_spaces=True)
    changed(folder, "added_tokens.json", **{"what's": len(WORDS), "Paris-sud": len(WORDS) + 1})


def added_tokens(folder: Path) -> None:
    tokens = [
        AddedToken("[Q]", special=True, normalized=False),
        AddedToken("what's", normalized=True),
        AddedToken("CAT", normalized=False, single_word=True),
        AddedToken("<gap>", normalized=False, lstrip=True, rstrip=True),
    ]
    states = {len(WORDS) + i: token.__getstate__() for i, token in enumerate(tokens)}
    special = {i: {"content": word, "special": True, "normalized": False} for i, word in enumerate(WORDS[:5])}
    old_bert(folder, added_tokens_decoder={str(i): state for i, state in {**special, **states}.items()})


def roles_beside(folder: Path) -> None:
    old_bert(folder)
    changed(folder, "special_tokens_map.json", pad_token="[P]", additional_special_tokens=["[Q]", "[D]"])


def mask_that_takes_the_space(folder: Path) -> None:
    old_bart(folder)
    mask = {"content": "<mask>", "lstrip": True, "rstrip": False, "normalized": True, "single_word": False}
    changed(folder, "special_tokens_map.json", mask_token=mask, eos_token="</s>")


def whole_words(folder: Path) -> None:
    """No decoder, no adding of special tokens; decoded texts are cleaned up."""
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    told = {"unk_token": "[UNK]", "pad_token": "[PAD]", "clean_up_tokenization_spaces": True}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **told).save_pretrained(folder)
    describe(folder, "bert")


def t5(folder: Path, **settings: Any) -> None:
    """A Unigram tokenizer.json, as sentencepiece models are converted to."""
    inside = [(letter, -5.0) for letter in "abcdefghiknoprstuw.,'?-</>T"]
    words = [(f"▁{word}", -3.0) for word in ("the", "cat", "w", "k", "T")]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *words, *inside]
    extra = [f"<extra_id_{i}>" for i in range(3)]
    tokenizer = Tokenizer(models.Unigram([*pieces, *((token, 0.0) for token in extra)], 2, False))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("  ", " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    tokenizer.add_special_tokens(["<pad>", "</s>", "<unk>", *extra])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    told = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>", "extra_special_tokens": extra}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **told, **settings).save_pretrained(folder)
    describe(folder, "t5")


def with_settings(make: Callable[..., None], *args: Any, **settings: Any) -> Callable[[Path], None]:
    return lambda folder: make(folder, *args, **settings)


FOLDERS: dict[str, Callable[[Path], None]] = {
    "bert, vocab.txt": old_bert,
    "bert, cased": with_settings(old_bert, do_lower_case=False),
    "bert, lower case with accents": with_settings(old_bert, do_lower_case=True, strip_accents=False),
    "bert, cased without accents": with_settings(old_bert, do_lower_case=False, strip_accents=True),
    "bert, Chinese words": with_settings(old_bert, tokenize_chinese_chars=False),
    "bert, clean-up": with_settings(old_bert, clean_up_tokenization_spaces=True),
    "bert, no clean-up": with_settings(old_bert, clean_up_tokenization_spaces=False),
    "bert, shortest length": with_settings(old_bert, model_max_length=7),
    "bert, padded on the left": with_settings(
        old_bert, padding_side="left", truncation_side="left", model_max_length=7
    ),
    "bert, special tokens are text": with_settings(old_bert, split_special_tokens=True),
    "bert, tokenizer.json": new_bert,
    "bert, tokenizer.json, clean-up": with_settings(new_bert, clean_up_tokenization_spaces=True),
    "bert, tokenizer.json of another case": other_case_than_its_json,
    "bert, tokenizer.json alone": json_alone,
    "bert, lengths in tokenizer.json": stored_lengths,
    "bert, added_tokens.json": older_added_tokens,
    "bert, added_tokens_decoder": added_tokens,
    "bert, special_tokens_map.json": roles_beside,
    "bert, whole words": whole_words,
    "dpr, vocab.txt": with_settings(old_bert, "dpr"),
    "dpr, as published": with_settings(
        old_bert, "dpr", tokenizer_class="DPRQuestionEncoderTokenizer", do_lower_case=True, model_max_length=512
    ),
    "dpr, cased": with_settings(old_bert, "dpr", tokenizer_class="BertTokenizer", do_lower_case=False),
    "bart, vocab.json and merges.txt": old_bart,
    "bart, prefix space": with_settings(old_bart, add_prefix_space=True),
    "bart, offsets with spaces": with_settings(old_bart, trim_offsets=False),
    "bart, clean-up, which is ignored": with_settings(old_bart, clean_up_tokenization_spaces=True),
    "bart, forced clean-up": with_settings(
        old_bart,
        clean_up_tokenization_spaces=True,
        clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output=True,
    ),
    "bart, mask takes the space": mask_that_takes_the_space,
    "bart, tokenizer.json": with_settings(new_bart, model_max_length=1024),
    "bart, tokenizer.json alone": bart_json_alone,
    "t5, Unigram": t5,
    "t5, clean-up": with_settings(t5, clean_up_tokenization_spaces=True, model_max_length=512),
}
