"""The tokenizer in a GGUF file's metadata, as a `tokenizers.Tokenizer`.

`gpt2` is byte-level BPE. The file names how it splits a text into words; the model's own tokenizer.json splits it the
same way. `llama` is SentencePiece's BPE, whose merges follow from the scores of its pieces.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from rag_jax.data.tokenizers import ignore_special_tokens_in_text
from rag_jax.errors import InputError
from rag_jax.hub.gguf_file import Metadata
from rag_jax.hub.tokenizers import Stored

ROLES = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
"""Roles of special tokens as transformers and as GGUF names them."""
ENDS = tuple(f"tokenizer.ggml.{name}_token_id" for name in ("eos", "eot", "eom"))
"""The tokens that end an answer: of a text, of a turn of a chat, of a message in a turn."""
NORMAL, UNKNOWN, CONTROL, USER_DEFINED = 1, 2, 3, 4  # types of tokens
SPACE = "▁"  # of SentencePiece

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_LETTERS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_MARKS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_BLANKS = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*"


def _split(*patterns: str) -> pre_tokenizers.PreTokenizer:
    words = pre_tokenizers.Split(Regex("|".join(patterns)), "isolated")
    return pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


class Words(NamedTuple):
    """How a byte-level tokenizer splits a text into words, and its other settings."""

    pre_tokenizer: pre_tokenizers.PreTokenizer
    normalizer: normalizers.Normalizer | None = None
    ignore_merges: bool = False  # a word of the vocabulary is a token, whatever the merges
    begins: bool = False  # a text begins with the BOS token, unless the file says otherwise


_GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
_LLAMA3 = Words(_split(_CONTRACTIONS, _LETTERS, r"\p{N}{1,3}", _MARKS, _BLANKS), ignore_merges=True, begins=True)
_TEKKEN_MARKS = r" ?[^\s\p{L}\p{N}]+[\r\n/]*"
WORDS = {
    "gpt-2": Words(_GPT2),
    "smollm": Words(pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _GPT2])),
    "llama-bpe": _LLAMA3,
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
    "qwen2": Words(_split(_CONTRACTIONS, _LETTERS, r"\p{N}", _MARKS, _BLANKS), normalizers.NFC()),
    "tekken": Words(_split(_CASED, r"\p{N}", _TEKKEN_MARKS, _BLANKS), ignore_merges=True, begins=True),
}
"""By the names of llama.cpp, which it derives from the ids that the model's own tokenizer gives."""


def read(metadata: Metadata) -> Stored:
    """The tokenizer and its settings. Raises `InputError` for one that is incomplete or not supported."""
    kind = metadata["tokenizer.ggml.model"]
    if kind not in KINDS:
        what = f"tokenizer.ggml.model is {kind!r}, supported are {', '.join(KINDS)}"
        raise InputError(f"{metadata.source}: {what}; use the model's transformers folder")
    vocabulary = _vocabulary(metadata)
    try:
        tokenizer, begins = KINDS[kind](metadata, vocabulary)
        special = dict.fromkeys([*vocabulary.of_type(CONTROL, UNKNOWN), *_framing(metadata, vocabulary.tokens)])
        tokenizer.add_special_tokens([_added(token, True) for token in special])
        words = [token for token in vocabulary.of_type(USER_DEFINED) if token not in special]
        tokenizer.add_tokens([_added(token, False) for token in words])
        settings = _settings(metadata, vocabulary.tokens, begins)
        _surround(tokenizer, settings)
        return Stored(ignore_special_tokens_in_text(tokenizer), settings)
    except InputError:
        raise
    except Exception as error:  # the Rust side raises plain Exception
        reason = str(error).strip().partition("\n")[0]
        remedy = "convert the model again with llama.cpp"
        raise InputError(f"{metadata.source}: the tokenizer cannot be read ({reason}); {remedy}") from None


class _Vocabulary(NamedTuple):
    """The tokens by their ids, and the type of each."""

    tokens: list[str]
    types: list[int]

    def of_type(self, *types: int) -> list[str]:
        return [token for token, each in zip(self.tokens, self.types, strict=True) if each in types]

    def ids(self) -> dict[str, int]:
        return {token: i for i, token in enumerate(self.tokens)}


def _vocabulary(metadata: Metadata) -> _Vocabulary:
    tokens = metadata["tokenizer.ggml.tokens"]
    types = metadata.get("tokenizer.ggml.token_type", [NORMAL] * len(tokens))
    what = f"{len(tokens)} tokens, {len(types)} types" if len(types) != len(tokens) else ""
    what = what or ("a token occurs twice" if len(set(tokens)) < len(tokens) else "")
    if what:
        raise InputError(f"{metadata.source}: the vocabulary is damaged ({what}); convert the model again")
    return _Vocabulary(tokens, types)


def _byte_level(metadata: Metadata, vocabulary: _Vocabulary) -> tuple[Tokenizer, bool]:
    name = metadata["tokenizer.ggml.pre"]
    if name not in WORDS:
        what = f"tokenizer.ggml.pre is {name!r}, supported are {', '.join(WORDS)}"
        raise InputError(f"{metadata.source}: {what}; use the model's transformers folder")
    words = WORDS[name]
    merges = [tuple(merge.split(" ", 1)) for merge in metadata["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocabulary.ids(), merges, ignore_merges=words.ignore_merges))
    if words.normalizer is not None:
        tokenizer.normalizer = words.normalizer
    tokenizer.pre_tokenizer = words.pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer, words.begins


def _sentence_piece(metadata: Metadata, vocabulary: _Vocabulary) -> tuple[Tokenizer, bool]:
    unknown = _token(metadata, vocabulary.tokens, "unk")
    model = models.BPE(vocabulary.ids(), _merges(metadata, vocabulary), unk_token=unknown)
    model.fuse_unk, model.byte_fallback = True, True
    tokenizer = Tokenizer(model)
    prefix = metadata.get("tokenizer.ggml.add_space_prefix", True)
    first = [normalizers.Prepend(SPACE)] if prefix else []
    tokenizer.normalizer = normalizers.Sequence([*first, normalizers.Replace(" ", SPACE)])
    last = [decoders.Strip(" ", 1, 0)] if prefix else []
    joined = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*joined, *last])
    return tokenizer, True


def _merges(metadata: Metadata, vocabulary: _Vocabulary) -> list[tuple[str, str]]:
    """The merges of SentencePiece's BPE, which at each step joins the two pieces whose union has the highest score."""
    scores = metadata["tokenizer.ggml.scores"]
    if len(scores) != len(vocabulary.tokens):
        what = f"{len(vocabulary.tokens)} tokens, {len(scores)} scores"
        raise InputError(f"{metadata.source}: the vocabulary is damaged ({what}); convert the model again")
    pieces = set(vocabulary.of_type(NORMAL))
    ranked = sorted(
        (-score, -cut, token[:cut], token[cut:])
        for token, score in zip(vocabulary.tokens, scores, strict=True)
        if token in pieces
        for cut in range(1, len(token))
        if token[:cut] in pieces and token[cut:] in pieces
    )
    return [(left, right) for *_, left, right in ranked]


KINDS: dict[str, Callable[[Metadata, _Vocabulary], tuple[Tokenizer, bool]]] = {
    "gpt2": _byte_level,
    "llama": _sentence_piece,
}
"""By `tokenizer.ggml.model`: the tokenizer, and whether its texts begin with BOS where the file does not say so."""


def _settings(metadata: Metadata, tokens: list[str], begins: bool) -> dict[str, Any]:
    """The settings of tokenizer_config.json."""
    roles = {f"{role}_token": _token(metadata, tokens, role) for role in ROLES}
    template, adds_eos = metadata.get("tokenizer.chat_template"), metadata.get("tokenizer.ggml.add_eos_token", False)
    # Older files of chat models name the end of a text as eos. CodeLlama's eot ends an infill, which its chat does not
    # write, and an encoder of texts, as Qwen3-Embedding, adds eos itself.
    if template and not adds_eos and ENDS[1] in metadata:
        end_of_turn = _token_of(metadata, tokens, ENDS[1])
        roles["eos_token"] = end_of_turn if end_of_turn in template else roles["eos_token"]
    longest = metadata.get(f"{metadata['general.architecture']}.context_length")
    return {
        **{role: token for role, token in roles.items() if token is not None},
        **({"chat_template": template} if template else {}),
        **({"model_max_length": longest} if longest else {}),
        "add_bos_token": metadata.get("tokenizer.ggml.add_bos_token", begins),
        "add_eos_token": adds_eos,
        "model_input_names": ["input_ids", "attention_mask"],
    }


def _framing(metadata: Metadata, tokens: list[str]) -> list[str]:
    """The tokens that begin and end texts and turns, which are no text, whatever their types."""
    keys = (f"tokenizer.ggml.{ROLES['bos']}_token_id", *ENDS)
    return [_token_of(metadata, tokens, key) for key in keys if key in metadata]


def _token(metadata: Metadata, tokens: list[str], role: str) -> str | None:
    key = f"tokenizer.ggml.{ROLES[role]}_token_id"
    return _token_of(metadata, tokens, key) if key in metadata else None


def _token_of(metadata: Metadata, tokens: list[str], key: str) -> str:
    i = metadata.number(key)
    if not 0 <= i < len(tokens):
        raise InputError(f"{metadata.source}: {key} is {i} of {len(tokens)} tokens; convert the model again")
    return tokens[i]


def _surround(tokenizer: Tokenizer, settings: dict[str, Any]) -> None:
    """Add the special tokens that begin and end a text, where the file asks for them."""
    roles = ("bos_token", "eos_token")
    first, last = ([settings[role]] if settings[f"add_{role}"] and role in settings else [] for role in roles)
    if first or last:
        single = [*first, "$A", *last]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=single,
            pair=[*single, *(f"{piece}:1" for piece in (*first, "$B", *last))],
            special_tokens=[(token, tokenizer.token_to_id(token)) for token in dict.fromkeys((*first, *last))],
        )


def _added(token: str, special: bool) -> AddedToken:
    return AddedToken(token, normalized=False, special=special)
