"""Checkpoints as they were uploaded over the years: other names, other precisions, more or fewer tensors."""

import json
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from tokenizers import pre_tokenizers
from transformers import BartConfig as BartConfigOfTransformers
from transformers import BartTokenizer, BertTokenizer, DPRQuestionEncoder, GenerationConfig

import oracle
import pretrained
from rag_jax.data.templates import fill_text
from rag_jax.errors import InputError
from rag_jax.hub import load, load_generator, load_tower
from rag_jax.hub.configs import read_config
from rag_jax.hub.loading import describe
from rag_jax.models.bart import POSITION_OFFSET, BartConfig
from rag_jax.models.bert import BertConfig
from rag_jax.types import Params

TOWER = BertConfig(vocab_size=40, width=16, layers=1, heads=2, ffn_width=24, max_positions=10)
GENERATOR = BartConfig(
    vocab_size=50, width=16, encoder_layers=1, decoder_layers=1, heads=2, ffn_width=24, max_positions=10
)
WORDS, BIAS = "model.shared.weight", "final_logits_bias"
TIED = ["model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight"]
Tensors = dict[str, np.ndarray]


def assert_same(ours: Params, theirs: Params) -> None:
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def change(folder: Path, edit: Callable[[Tensors], Tensors]) -> None:
    """Store other tensors in place of a folder's."""
    path = folder / "model.safetensors"
    changed = edit(safetensors.numpy.load_file(path))
    safetensors.numpy.save_file({name: np.ascontiguousarray(each) for name, each in changed.items()}, path)


def reconfigure(folder: Path, **changes) -> None:
    """Change the config; what becomes None is left out."""
    path = folder / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def config(folder: Path) -> dict:
    return json.loads((folder / "config.json").read_text())


@pytest.fixture
def tower_folder(tmp_path) -> Path:
    oracle.tower(DPRQuestionEncoder, TOWER)[0].save_pretrained(tmp_path)
    return tmp_path


@pytest.fixture
def generator_folder(tmp_path) -> Path:
    oracle.generator(GENERATOR)[0].save_pretrained(tmp_path)
    return tmp_path


@pytest.fixture
def rag_folder(tmp_path) -> Path:
    pretrained.save_rag(tmp_path, "token")
    return tmp_path


def params() -> Params:
    return oracle.generator(GENERATOR)[1]


@pytest.mark.parametrize("names", [[WORDS], *([name] for name in TIED), TIED, [WORDS, *TIED]])
def test_the_token_table_is_found_under_any_of_its_names(generator_folder, names):
    change(generator_folder, lambda t: t | dict.fromkeys(names, t.pop(WORDS)))
    assert_same(load_generator(generator_folder).params, params())


@pytest.mark.parametrize("name", TIED)
@pytest.mark.parametrize("shape", [(50, 16), (51, 16)])
def test_an_untied_table_is_refused(generator_folder, name, shape):
    change(generator_folder, lambda t: t | {name: np.ones(shape, np.float32)})
    with pytest.raises(InputError, match=rf"{name} is not {WORDS}, and only tied tables are known here; give a .*one$"):
        load_generator(generator_folder)


def test_a_missing_final_bias_is_zero(generator_folder):
    change(generator_folder, lambda t: {name: each for name, each in t.items() if name != BIAS})
    assert_same(load_generator(generator_folder).params, params() | {BIAS: jnp.zeros(50)})


def test_a_flat_final_bias_is_taken(generator_folder):
    change(generator_folder, lambda t: t | {BIAS: t[BIAS][0]})
    assert_same(load_generator(generator_folder).params, params())


def test_barts_position_tables_have_more_rows_than_positions(generator_folder):
    rows = load_generator(generator_folder).params["encoder_position"]["embedding"].shape[0]
    assert rows == GENERATOR.max_positions + POSITION_OFFSET == config(generator_folder)["max_position_embeddings"] + 2
    change(generator_folder, lambda t: {n: each[2:] if "embed_positions" in n else each for n, each in t.items()})
    with pytest.raises(InputError, match=r"embed_positions.weight has shape \(10, 16\), the config says \(12, 16\)"):
        load_generator(generator_folder)


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16])
@pytest.mark.parametrize("kind", ["tower", "generator"])
def test_half_precision_becomes_single(request, kind, dtype):
    folder = request.getfixturevalue(f"{kind}_folder")
    theirs = params() if kind == "generator" else oracle.tower(DPRQuestionEncoder, TOWER)[1]
    change(folder, lambda t: {name: each.astype(dtype) for name, each in t.items()})
    rounded = jax.tree.map(lambda leaf: np.asarray(leaf).astype(dtype).astype(np.float32), theirs)
    assert_same(load(folder).params, rounded)


def test_names_of_tensorflow_and_what_no_network_here_reads(tower_folder):
    def older(tensors: Tensors) -> Tensors:
        renamed = {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): each
            for name, each in tensors.items()
        }
        assert renamed.keys() != tensors.keys()
        inner = "question_encoder.bert_model."
        return renamed | {
            f"{inner}embeddings.position_ids": np.arange(10)[None],
            f"{inner}pooler.dense.weight": np.ones((16, 16), np.float32),
            f"{inner}pooler.dense.bias": np.ones(16, np.float32),
        }

    change(tower_folder, older)
    assert_same(load_tower(tower_folder).params, oracle.tower(DPRQuestionEncoder, TOWER)[1])


def test_rag_is_read_with_and_without_its_prefix(rag_folder):
    sizes = pretrained.sizes()
    tower, generator = oracle.tower(DPRQuestionEncoder, sizes[0])[1], oracle.generator(sizes[1])[1]
    assert_same(load_tower(rag_folder).params, tower)
    assert_same(load_generator(rag_folder).params, generator)
    change(rag_folder, lambda t: {name.removeprefix("rag."): each for name, each in t.items()})
    found = load(rag_folder)
    assert_same(found.tower.params, tower)
    assert_same(found.generator.params, generator)


def test_rags_parts_are_untied_and_flattened_as_alone(rag_folder):
    theirs = load_generator(rag_folder).params
    root = "rag.generator."
    change(rag_folder, lambda t: t | {root + BIAS: t[root + BIAS][0], f"{root}lm_head.weight": t.pop(root + WORDS)})
    assert_same(load_generator(rag_folder).params, theirs)


def test_older_rag_configs_keep_the_search_with_the_generator(rag_folder):
    (rag_folder / "generation_config.json").unlink()
    search = {"num_beams": 4, "max_length": 20, "forced_bos_token_id": 0, "no_repeat_ngram_size": 3, "min_length": 1}
    before = config(rag_folder)
    reconfigure(rag_folder, generator=before["generator"] | search | {"top_p": None, "output_attentions": False})
    told = load_generator(rag_folder).generation
    assert told.items() >= search.items()
    assert told.keys().isdisjoint({"top_p", "output_attentions", "d_model"})
    reconfigure(rag_folder, num_beams=2)
    assert load(rag_folder).generator.generation == told | {"num_beams": 2}


def test_settings_that_bart_leaves_out_are_those_of_its_family(rag_folder):
    (rag_folder / "generation_config.json").unlink()
    named = ("decoder_start_token_id", "forced_bos_token_id", "forced_eos_token_id")
    plain = {key: value for key, value in config(rag_folder)["generator"].items() if key not in named}
    for more in ({}, {"force_bos_token_to_be_generated": True}, {"decoder_start_token_id": 5}, dict.fromkeys(named)):
        reconfigure(rag_folder, generator=plain | more, **dict.fromkeys(named))
        theirs = GenerationConfig.from_model_config(BartConfigOfTransformers(**plain, **more)).to_dict()
        ours = load_generator(rag_folder).generation
        assert [ours.get(name) for name in named] == [theirs.get(name) for name in named], more


def test_a_generation_config_is_all_that_counts_where_there_is_one(rag_folder):
    (rag_folder / "generation_config.json").write_text('{"num_beams": 5, "eos_token_id": 2}')
    reconfigure(rag_folder, num_beams=2, max_length=9)
    assert load_generator(rag_folder).generation == {"num_beams": 5, "eos_token_id": 2}


@pytest.mark.parametrize(("inner", "outer", "prefix"), [(" ", "", " "), ("a: ", "b: ", "a: "), (None, "b: ", "")])
def test_a_generators_prefix_stands_before_the_title(rag_folder, inner, outer, prefix):
    reconfigure(rag_folder, generator=config(rag_folder)["generator"] | {"prefix": inner}, prefix=outer)
    assert describe(read_config(rag_folder)).passage_template == f"{prefix}{{title}} / {{text}}"


def test_rags_older_tokenizers_are_read_as_transformers_reads_them(rag_folder):
    bert, bart = rag_folder / "question_encoder_tokenizer", rag_folder / "generator_tokenizer"
    words = sorted(pretrained.tower_tokenizer().get_vocab().items(), key=lambda item: item[1])
    pieces = json.loads(pretrained.generator_tokenizer().to_str())["model"]
    for folder in (bert, bart):
        for path in folder.iterdir():
            path.unlink()
    (bert / "vocab.txt").write_text("".join(f"{word}\n" for word, _ in words))
    (bert / "tokenizer_config.json").write_text('{"do_lower_case": true, "model_max_length": 512}')
    (bart / "vocab.json").write_text(json.dumps(pieces["vocab"]))
    (bart / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{' '.join(pair)}\n" for pair in pieces["merges"]))
    (bart / "tokenizer_config.json").write_text('{"model_max_length": 1024}')
    loaded = load(rag_folder)
    texts = [*pretrained.QUESTIONS, *(passage.text for passage in pretrained.PASSAGES)]
    for part, kind, folder in ((loaded.tower, BertTokenizer, bert), (loaded.generator, BartTokenizer, bart)):
        assert [part.tokenizer.encode(text).ids for text in texts] == kind.from_pretrained(folder)(texts)["input_ids"]


@pytest.mark.parametrize("rows", [50264, 50265])
def test_barts_mask_goes_where_it_has_no_row(tmp_path, rows):
    """bart-large-cnn has 50 264 rows and the tokenizer of bart-large, whose last token is <mask>."""
    sizes = BartConfig(
        vocab_size=rows, width=4, encoder_layers=1, decoder_layers=1, heads=1, ffn_width=4, max_positions=8
    )
    oracle.generator(sizes)[0].save_pretrained(tmp_path)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [
        "<s>",
        "<pad>",
        "</s>",
        "<unk>",
        *letters,
        *(f"word{n}" for n in range(50264 - 4 - len(letters))),
        "<mask>",
    ]
    (tmp_path / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(pieces)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    loaded = load_generator(tmp_path)
    assert loaded.tokenizer.get_vocab_size() == loaded.config.vocab_size == rows
    assert loaded.tokenizer.token_to_id("<mask>") == (50264 if rows == 50265 else None)
    spelt = loaded.tokenizer.encode("<mask>", add_special_tokens=False).ids
    assert spelt == [pieces.index(letter) for letter in "<mask>"], "in a text it is text"
    theirs = BartTokenizer.from_pretrained(tmp_path)(["a text", " "])["input_ids"]
    assert [loaded.tokenizer.encode(text).ids for text in ("a text", " ")] == theirs


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.bool_])
def test_weights_that_are_whole_numbers_are_refused(generator_folder: Path, dtype: type) -> None:
    change(generator_folder, lambda found: found | {"model.encoder.layers.0.fc1.bias": np.ones(24, dtype)})
    with pytest.raises(InputError, match=r"fc1\.bias holds \w+; give weights in F64, F32, F16 or BF16$"):
        load_generator(generator_folder)


def test_weights_of_eight_bits_are_refused(generator_folder: Path) -> None:
    path = generator_folder / "model.safetensors"
    stored = pytest.importorskip("safetensors.torch", reason="numpy has no such numbers")
    found = stored.load_file(path)
    found["model.encoder.layers.0.fc1.bias"] = oracle.torch.ones(24).to(oracle.torch.float8_e4m3fn)
    stored.save_file(found, path)
    with pytest.raises(InputError, match=r"fc1\.bias holds F8_E4M3; give weights in F64, F32, F16 or BF16$"):
        load_generator(generator_folder)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"encoder_layers": 10_000}, "encoder_layers is 10000, and there are"),
        ({"encoder_layers": 10**9}, "encoder_layers is 1000000000; give 1 to 10000"),
        ({"d_model": 0}, "d_model is 0; give 1 to 1048576"),
        ({"d_model": 1e30}, "d_model is 1e[+]30; give a whole number"),
        ({"d_model": "16"}, "d_model is '16'; give a whole number"),
        ({"d_model": 17}, "encoder_attention_heads 2 does not divide d_model 17"),
        ({"vocab_size": [50]}, "vocab_size is \\[50\\]; give a whole number"),
        ({"dropout": 1.0}, "dropout is 1.0; give 0 or more, below 1"),
        ({"init_std": -1}, "init_std is -1; give 0 to 100"),
        ({"scale_embedding": 1}, "scale_embedding is 1; give true or false"),
    ],
)
def test_sizes_that_no_network_has_are_refused_in_one_line(generator_folder: Path, changes: dict, told: str) -> None:
    reconfigure(generator_folder, **changes)
    with pytest.raises(InputError, match=f"^{generator_folder / 'config.json'}: {told}"):
        load_generator(generator_folder)


@pytest.mark.parametrize("text", ["{0.__class__}", "%s", "{", "}}", "{}", "{titel}", "\\", " {{text"])
def test_a_separator_is_plain_text(rag_folder: Path, text: str) -> None:
    reconfigure(rag_folder, title_sep=text, doc_sep=text)
    reading = describe(read_config(rag_folder))
    assert fill_text(reading.passage_template, title="a {text}", text="b") == f"a {{text}}{text}b"
    assert fill_text(reading.question_template, question="{passage}") == f"{text}{{passage}}"


@pytest.mark.parametrize("key", ["title_sep", "doc_sep", "prefix"])
def test_a_separator_that_looks_like_a_field_is_refused(rag_folder: Path, key: str) -> None:
    text = " {text} "
    inner = {"generator": config(rag_folder)["generator"] | {key: text}}
    reconfigure(rag_folder, **(inner if key == "prefix" else {key: text}))
    with pytest.raises(InputError, match=f"config.json: {key} holds {{text}}, which is a field of templates"):
        describe(read_config(rag_folder))
