"""Every JSON file that the library reads: a valid document, and what reads it. Reading takes milliseconds."""

import contextlib
import json
import tempfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

import pretrained
from rag_jax.config.config import Config, Data, Retriever
from rag_jax.config.contrastive import BiEncoder, ContrastiveConfig
from rag_jax.config.contrastive import Data as ContrastiveData
from rag_jax.config.files import load_config, load_config_of, save_config
from rag_jax.contrastive.negatives import read_negatives
from rag_jax.contrastive.teacher import read_teacher
from rag_jax.corpus import read_corpus
from rag_jax.corpus.tables import data_files
from rag_jax.data.conversations import format_of, read_conversations
from rag_jax.data.own_folder import OwnFolder
from rag_jax.data.question import Question
from rag_jax.data.questions import fingerprint, read_questions
from rag_jax.data.safety_prompts import read_safety_prompts
from rag_jax.data.tokenizers import GeneratorTokenizer, train_generator_tokenizer
from rag_jax.evaluation import evaluate
from rag_jax.evaluation.predictions import read_predictions
from rag_jax.evaluation.score_file import read_evaluation
from rag_jax.hub import adapters, bart, bert, configs, decoder, loading, registry, t5, tensors, tokenizers
from rag_jax.hub.checkpoints import Reading
from rag_jax.hub.config_json import ConfigJson
from rag_jax.hub.input_format import read_input_format
from rag_jax.index import manifest, part_files, pending_build, sealed_json
from rag_jax.models.bart import BartConfig
from rag_jax.models.bert import BertConfig
from rag_jax.models.decoder import DecoderConfig
from rag_jax.models.rope import Rope
from rag_jax.models.t5 import T5Config
from rag_jax.moderation.categories import Categories
from rag_jax.moderation.texts import read_texts
from rag_jax.pipeline import checkpoint_folders
from rag_jax.pipeline.checkpoints import saved_host_state
from rag_jax.pipeline.hf_generation import from_hf
from rag_jax.training import metric_logger


class JsonReader(NamedTuple):
    """A JSON file of a folder."""

    name: str  # path in the folder
    document: Any  # what it validly holds
    read: Callable[[Path], Any]  # of the folder
    others: dict[str, Any] = {}  # noqa: RUF012 (other files of the folder, by path)


TOWER, BART = BertConfig(vocab_size=40, width=16, layers=2, heads=2, ffn_width=24), BartConfig(vocab_size=50, width=16)
LLAMA = DecoderConfig(vocab_size=50, width=16, heads=4, kv_heads=2, rope=Rope(1e4, "llama3", 8.0, 1.0, 4.0, 512))
QWEN = DecoderConfig(vocab_size=50, width=16, heads=4, window=8, model_type="qwen2")
TURNS = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
QUESTIONS = [Question("a", "who?", ("me",)), Question("b", "where?", ("here",))]
RAG = configs.describe_rag(
    Reading("token", 5, 300, "{title} / {text}", " // {question}", True),
    bert.describe(TOWER, "question"),
    bart.describe(BART, {}),
    TOWER,
)
SENTENCE_TRANSFORMERS = {
    "config.json": bert.describe(TOWER, None),
    "modules.json": [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ],
    "1_Pooling/config.json": {"word_embedding_dimension": 16, "pooling_mode_mean_tokens": True, "include_prompt": True},
    "config_sentence_transformers.json": {
        "prompts": {"query": "query: ", "document": "passage: "},
        "default_prompt_name": None,
        "truncate_dim": 8,
    },
    "sentence_bert_config.json": {"max_seq_length": 20, "do_lower_case": True},
}
MANIFEST = {
    **{"format": manifest.FORMAT, "version": 1, "rows": 3, "width": 8, "dtype": "float32", "passages": 2},
    "made_of": None,
    "tower": {"source": "here", "fingerprint": "ab", "template": "pair", "max_length": 32, "norm": 1.0, "cut_to": 8},
    "segments": [
        {
            "name": "000000",
            "passages": 3,
            "parts": {"passages/000000": "a", "vectors/000000": "b"},
            "truncated": {"vectors": [1, 9]},
        }
    ],
    "generators": {"ab": {"tokenizer": "cd", "max_length": 16, "template": "{title} / {text}"}},
    "removed": "removed/000002",
    "engines": {"faiss": {"rows": 3, "factory": "Flat", "recall": {"recall@1": 0.5}, "part": "engines/faiss-000003"}},
    "checksums": {"removed/000002": "c", "engines/faiss-000003": "d"},
    "changes": [{"version": 1, "change": "build", "passages": 2, "rows": 3, "next_segment": 1}],
}
BUILDING = {"made_of": {"corpus": "a"}, "segments": [["000000", 3]], "over": ["000000"]}
PART = {"ids": {"file": "ids.bin", "bytes": 24, "sha256": "ab", "dtype": "int32", "shape": [2, 3]}}
ADAPTER = {
    **{"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": None, "r": 2, "lora_alpha": 4.0},
    **{"lora_dropout": 0.0, "bias": "none", "fan_in_fan_out": False, "use_rslora": True, "target_modules": ["q_proj"]},
}
TOKENIZER = {
    **{"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "model_max_length": 16},
    **{"clean_up_tokenization_spaces": True, "padding_side": "left", "model_input_names": ["input_ids"]},
    "added_tokens_decoder": {"0": {"content": "<s>", "special": True, "lstrip": False}},
    "chat_template": "{% for each in messages %}{{ each.content }}{% endfor %}",
}
GENERATION = {
    **{"max_length": 20, "min_length": 2, "num_beams": 4, "num_return_sequences": 1, "length_penalty": 1.0},
    **{"early_stopping": True, "no_repeat_ngram_size": 3, "bad_words_ids": None, "forced_bos_token_id": 0},
    **{"do_sample": True, "temperature": 0.5, "top_k": 5, "top_p": 0.9, "min_p": 0.1, "repetition_penalty": 1.0},
}


@cache
def words() -> GeneratorTokenizer:
    return train_generator_tokenizer([f"{each.title} {each.text}" for each in pretrained.PASSAGES], 300)


def tower(folder: Path) -> Any:
    config = configs.read_config(folder)
    family = registry.tower(config)
    found = family.read_config(config, folder)
    return found, read_input_format(config, folder, family.passage(config))


def generator(folder: Path) -> Any:
    config = configs.read_config(folder)
    return registry.generator(config).read_config(config)


def rag(folder: Path) -> Any:
    config = configs.read_config(folder)
    config.expect("rag")
    parts = config.nested("question_encoder"), config.nested("generator")
    return (
        loading.describe(config),
        registry.tower(parts[0]).read_config(parts[0], folder),
        registry.generator(parts[1]).read_config(parts[1]),
    )


def generation(folder: Path) -> Any:
    config = ConfigJson(str(folder), {"model_type": "bart"})
    return from_hf(loading.generation(folder, config), words(), str(folder), "token")


def _rows(read: Callable[[Path], Any], folder: Path) -> Any:
    return read(folder / "rows.jsonl")


def own_folder(folder: Path) -> None:
    OwnFolder(folder, "marker.json", "results", "choose another").check()


def sealed(name: str, read: Callable[[Path], Any], folder: Path) -> Any:
    """Read a file that holds its checksum: with the right one, as whoever changes it can compute it too."""
    with contextlib.suppress(ValueError):
        sealed_json.write(folder / name, sealed_json.read(folder / name))
    return read(folder)


def stored_version(folder: Path) -> Any:
    found = manifest.read(folder)
    assert isinstance(found.question_source, str)
    return found, found.version, found.rows, found.next_segment, found.truncated(), found.parts


def arrays(folder: Path) -> Any:
    (folder / "ids.bin").write_bytes(bytes(24))
    return [each.shape for each in part_files.read_arrays(folder).values()]


def adapter(folder: Path) -> Any:
    modules = adapters.Modules(decoder.NAMES)
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"
    held = {name.format("A"): np.ones((2, 16), np.float32), name.format("B"): np.ones((16, 2), np.float32)}
    tensors.write_tensors(folder, held, stem="adapter_model")
    params = {"layers_0": {"attention": {"query": {"kernel": jnp.zeros((16, 16))}}}}
    return adapters.load(folder, params, modules)


def tokenizer(folder: Path) -> Any:
    (folder / "tokenizer.json").write_text(words().tokenizer.to_str())
    return tokenizers.read(folder, {"model_type": "bart"})


def teacher(path: Path) -> Any:
    read_negatives(path, QUESTIONS[:1])  # a run reads them first
    return read_teacher(path)


def saved(config: Any) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        save_config(config, Path(folder) / "config.json")
        return json.loads((Path(folder) / "config.json").read_text())


def conversations(path: Path) -> Any:
    format = format_of(path)
    return read_questions(path) if format is None else read_conversations(path, format)


def readers() -> dict[str, JsonReader]:
    """The readers by name."""
    rag_config = saved(Config(Data(Path("corpus")), Retriever("tower")))
    contrastive = saved(ContrastiveConfig(ContrastiveData(Path("corpus")), BiEncoder("tower")))
    results = {"exact_match": 0.5, "index": evaluate.CLOSED_BOOK, "evaluated_on": fingerprint(QUESTIONS)}
    place = {
        "input": {"drawn": {"next_index": 3}, "waiting": {"[16, 20]": [1, 2]}},
        "window": [{"loss": 1.0, "skipped": None}],
        "watchdog": {"best": {"kl": 0.5}, "warned": False},
        "made_of": {"passages": "abc"},
    }
    found = {
        "bert": JsonReader("config.json", bert.describe(TOWER, None), tower),
        "dpr": JsonReader("config.json", bert.describe(TOWER, "question"), tower),
        "bart": JsonReader("config.json", bart.describe(BART, {}), generator),
        "t5": JsonReader("config.json", t5.describe(T5Config(vocab_size=50, width=16), {}), generator),
        "llama": JsonReader("config.json", decoder.describe(LLAMA, {}), generator),
        "qwen": JsonReader("config.json", decoder.describe(QWEN, {}), generator),
        "decoder tower": JsonReader("config.json", decoder.describe(LLAMA, {}), tower),
        "rag": JsonReader("config.json", RAG, rag),
        "generation": JsonReader("generation_config.json", GENERATION, generation),
        "shards": JsonReader(
            "model.safetensors.index.json", {"metadata": {}, "weight_map": {"a": "b"}}, tensors.read_tensors
        ),
        "run": JsonReader("config.json", rag_config, lambda folder: load_config(folder / "config.json")),
        "contrastive run": JsonReader(
            "config.json", contrastive, lambda folder: load_config_of(ContrastiveConfig, folder / "config.json")
        ),
        "results": JsonReader("results.json", results, lambda folder: evaluate.closed_book_score(folder, QUESTIONS)),
        "dataset": JsonReader(
            "state.json", {"_data_files": [{"filename": "a.arrow"}], "_indices_data_files": None}, data_files
        ),
        "place": JsonReader("checkpoints/3/place/metadata", place, saved_host_state),
        "metrics": JsonReader(
            "metrics.jsonl",
            {"step": 3, "loss": 0.5, "seconds": 1.0},
            lambda folder: list(metric_logger.read_lines(folder / "metrics.jsonl")),
        ),
        "timings": JsonReader("timings.jsonl", {"step": 3, "seconds": 1.0}, metric_logger.seconds_trained),
        "manifest": JsonReader("manifest.json", MANIFEST, partial(sealed, "manifest.json", stored_version)),
        "pending build": JsonReader(
            "building.json", BUILDING, partial(sealed, "building.json", lambda folder: pending_build.read(folder, ()))
        ),
        "part": JsonReader("part.json", PART, arrays),
        "adapter": JsonReader("adapter_config.json", ADAPTER, adapter),
        "tokenizer": JsonReader("tokenizer_config.json", TOKENIZER, tokenizer),
        "marker": JsonReader("marker.json", {"checksums": ["ab"]}, own_folder),
        "towers": JsonReader(
            "towers/rag-jax.towers", {"a": "b"}, lambda folder: checkpoint_folders.check(folder / "towers")
        ),
        "predictions": JsonReader(
            "predictions.jsonl",
            {"id": "a", "answer": "me", "log_prob": -1.5, "passages": [{"id": "p", "log_prior": -0.5}]},
            lambda folder: read_predictions(folder / "predictions.jsonl", QUESTIONS[:1]),
        ),
        "questions": JsonReader(
            "questions.jsonl",
            {"id": "a", "question": "who?", "answers": ["me"], "positive_ids": ["1"]},
            lambda folder: read_questions(folder / "questions.jsonl"),
        ),
    }
    lines: dict[str, tuple[Any, Callable[[Path], Any]]] = {
        "scores": (
            {"id": "a", "question": "q", "answer": "x", "answers": ["x"], "scores": {"f1": 1.0}},
            read_evaluation,
        ),
        "conversations": ({"messages": TURNS}, conversations),
        "texts": ({"id": "a", "text": "b", "label": "c"}, read_texts),
        "passages": ({"id": "a", "title": "b", "text": "c"}, lambda path: list(read_corpus(path))),
        "safety prompts": ({"id": "a", "prompt": "b", "type": "c", "label": "safe"}, read_safety_prompts),
        "teacher": ({"id": "a", "positive_score": 1.0, "negative_ids": ["b"], "scores": [0.5]}, teacher),
        "negatives": ({"id": "a", "negative_ids": ["b"]}, lambda path: read_negatives(path, QUESTIONS[:1])),
    }
    for name, (document, read) in lines.items():
        found[name] = JsonReader("rows.jsonl", document, partial(_rows, read))
    categories = {"moderated": [{"name": "a", "description": "b", "threshold": 0.5}], "acceptable": "fine"}
    found["categories"] = JsonReader("a.json", categories, lambda folder: Categories.read(folder / "a.json"))
    for name, document in SENTENCE_TRANSFORMERS.items():
        found[f"sentence-transformers {name}"] = JsonReader(name, document, tower, SENTENCE_TRANSFORMERS)
    return found


READERS = readers()
