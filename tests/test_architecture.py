"""A family of networks is two files: another one needs nothing else, and no other file names one."""

import dataclasses
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

import rag_jax.hub
import rag_jax.models
from rag_jax import hub
from rag_jax.config.config import Compute, Config, Mesh
from rag_jax.core import training
from rag_jax.data.tokenizers import train_generator_tokenizer
from rag_jax.errors import InputError
from rag_jax.hub import registry as formats
from rag_jax.models import registry
from rag_jax.models.architecture import Architecture, SpecialTokens
from rag_jax.pipeline import networks
from rag_jax.pipeline.assembly import open_components, prepare, read_corpus
from rag_jax.pipeline.question_batches import target_batches
from rag_jax.rag import RAG
from rag_jax.terminal import Terminal
from rag_jax.training import checks, dry_run, step_timer

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "extending.md"
QUESTIONS = ["what colour is Norburg", "what colour is Goldau"]


@pytest.fixture
def bag(monkeypatch: pytest.MonkeyPatch) -> Architecture:
    """The family that the page on extending makes: its two files, and its two lines."""
    blocks = re.findall(r"`(rag_jax/\w+/bag\.py)`:\n\n```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert [path for path, _ in blocks] == ["rag_jax/models/bag.py", "rag_jax/hub/bag.py"]
    for path, source in blocks:
        name = path.removesuffix(".py").replace("/", ".")
        module = ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
        monkeypatch.setattr(sys.modules[name.rpartition(".")[0]], "bag", module, raising=False)
        exec(compile(source, str(PAGE), "exec"), module.__dict__)
    family = rag_jax.models.bag.ARCHITECTURE  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(registry.GENERATORS, "bag", family)
    monkeypatch.setitem(formats.GENERATORS, "bag", rag_jax.hub.bag.FORMAT)  # pyright: ignore[reportAttributeAccessIssue]
    return family


@pytest.fixture
def asked(bag: Architecture, towns: Config) -> Config:
    """A run of the small world with that generator from scratch."""
    return dataclasses.replace(towns, generator=dataclasses.replace(towns.generator, architecture=bag.name))


@pytest.fixture
def rag(asked: Config, tmp_path: Path) -> RAG:
    parts = open_components(prepare(asked, tmp_path / "run", read_corpus(asked)), tmp_path / "run")
    return RAG(parts, parts.initial_params)


def same(one, other) -> None:
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.extended
def test_it_is_made_from_scratch_trained_and_decoded(bag: Architecture, rag: RAG) -> None:
    parts = rag.components
    assert type(parts.generator.config) is bag.config
    assert parts.generator.config == bag.config(width=32, vocab_size=parts.generator_tokenizer.size)
    _, batch = next(target_batches(parts, QUESTIONS, ["red", "blue"], 2))
    state = training.init(parts.recipe, jax.tree.map(jnp.array, rag.params), jax.random.key(0))
    step = jax.jit(partial(training.train_step, parts.recipe))
    after, metrics = step(state, parts.knowledge, batch, jnp.full((2, 1), -1))
    after, metrics = step(after, parts.knowledge, batch, jnp.full((2, 1), -1))  # the first one warms up from rate zero
    assert np.isfinite(float(metrics.loss))
    moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), after.params.generator, rag.params.generator)
    assert all(jax.tree.leaves(moved))
    answers = RAG(parts, after.params).answer(QUESTIONS, num_beams=2, n_best=2)
    assert all(np.isfinite(answer.log_prob) and answer.alternatives for answer in answers)


def test_its_checkpoints_go_out_and_come_in(bag: Architecture, rag: RAG, tmp_path: Path) -> None:
    reader, alone = rag.components.generator, tmp_path / "alone"
    saved = hub.GeneratorCheckpoint(reader.config, reader.params, reader.tokenizer.tokenizer, {})
    hub.save(alone, saved)
    for found in (hub.load(alone), hub.load_generator(alone)):
        assert isinstance(found, hub.GeneratorCheckpoint)
        assert (found.config, type(found.config)) == (reader.config, bag.config)
        same(found.params, reader.params)
    assert hub.generator_family(alone) is bag
    config = dataclasses.replace(rag.components.config.generator, architecture="bart", checkpoint=str(alone))
    config = dataclasses.replace(rag.components.config, generator=config)
    again = prepare(config, tmp_path / "from checkpoint", read_corpus(config))
    same(again.generator.params, reader.params)
    assert again.generator_tokenizer.passages([("a", "b")]) == reader.tokenizer.passages([("a", "b")])


def test_it_is_half_of_a_rag_checkpoint(rag: RAG, tmp_path: Path) -> None:
    rag.save_pretrained(tmp_path / "whole")
    again = RAG.from_pretrained(tmp_path / "whole")
    same(again.params.generator, rag.params.generator)
    assert again.components.generator.config == rag.components.generator.config


def test_the_dry_run_knows_its_parameters_their_split_and_its_size(bag: Architecture, asked: Config) -> None:
    wide = dataclasses.replace(asked.generator, width=512, vocabulary=2_000)
    config = dataclasses.replace(asked, generator=wide, mesh=Mesh(fsdp=2))
    tower, reader = dry_run.sizes(config)
    state, _, _ = dry_run.arguments(config, tower, reader, 100)
    assert state.params.generator["up"]["kernel"].sharding.spec == PartitionSpec("fsdp", "tensor")
    assert state.params.generator["word"]["embedding"].sharding.shard_shape((2_000, 512)) == (2_000, 256)
    out = io.StringIO()
    console = Terminal(file=out, width=160)
    console.print(dry_run._sharding(state.params, config), dry_run._shapes(config, tower, reader, "some"))
    assert re.search(r"generator word/embedding \(1\) +\(2000, 512\) +P", out.getvalue())
    assert bag.describe(reader) in out.getvalue()


def test_its_own_rules_split_its_parameters(bag: Architecture, asked: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    own = bag._replace(partition_rules=((r"up/kernel$", PartitionSpec(None, "fsdp")),))
    monkeypatch.setitem(registry.GENERATORS, "bag", own)
    config = dataclasses.replace(asked, mesh=Mesh(fsdp=2))
    params = dry_run.arguments(config, *dry_run.sizes(config), 100)[0].params
    assert params.generator["up"]["kernel"].sharding.spec == PartitionSpec(None, "fsdp")
    assert params.generator["word"]["embedding"].sharding.spec == PartitionSpec(), "no rule names it"
    assert params.question_tower["layer_0"]["up"]["kernel"].sharding.spec == PartitionSpec("fsdp", "tensor")


def test_its_flops_are_counted(bag: Architecture, asked: Config) -> None:
    tower, reader = dry_run.sizes(asked)
    read = step_timer.flops(tower, reader, 2, 3, (8, 20, 5), True) - step_timer.flops(
        tower, reader, 2, 0, (8, 20, 5), True
    )
    assert read == 3 * 2 * 3 * bag.flops(reader, 20, 5)
    assert bag.flops(reader, 20, 5) > 0


@pytest.mark.parametrize(
    ("compute", "told"),
    [
        (Compute(scan=True), r"compute\.scan True; leave it False"),
        (Compute(prefill_chunk=8), r"compute\.prefill_chunk 8; leave it None"),
    ],
)
def test_what_it_cannot_do_is_refused(asked: Config, tmp_path: Path, compute: Compute, told: str) -> None:
    config = dataclasses.replace(asked, compute=compute)
    with pytest.raises(InputError, match=rf"^generator: its network does not support {told}$"):
        prepare(config, tmp_path, read_corpus(config))


def test_an_unknown_one_is_refused_by_the_names_of_those_known(towns: Config, tmp_path: Path) -> None:
    config = dataclasses.replace(towns, generator=dataclasses.replace(towns.generator, architecture="bag"))
    known = " or ".join(sorted(registry.GENERATORS))
    with pytest.raises(InputError, match=rf"^generator\.architecture is 'bag', which is not supported; give {known}$"):
        checks.check(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_special_tokens_are_the_familys(bag: Architecture, asked: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    special = SpecialTokens(bos=None, pad="<pad>", eos="</s>", start="<pad>", others=("<unk>",))
    monkeypatch.setitem(registry.GENERATORS, "bag", bag._replace(special_tokens=special))
    assert networks.special_tokens(asked) == special
    words = train_generator_tokenizer(["a b c"] * 9, 300, special)
    assert words.tokenizer.token_to_id("<s>") is None
    assert (words.bos, words.token(words.decoder_start), words.passage_start) == (None, "<pad>", [])
    assert words.passages([("a", "b")]) == [words.tokenizer.encode("a / b", add_special_tokens=False).ids]


FAMILIES = sorted({*registry.TOWERS, *registry.GENERATORS})
OWN = {ROOT / "rag_jax" / room / f"{name}.py" for room in ("models", "hub") for name in (*FAMILIES, "registry")}
OWN |= set((ROOT / "rag_jax").glob("models/decoder*.py")) | {ROOT / "rag_jax" / "hub" / "decoder.py"}  # of llama
OWN |= {ROOT / "rag_jax" / "models" / "rope.py"}  # one of its scalings has this name everywhere
OWN |= set((ROOT / "rag_jax").glob("hub/gguf*.py"))  # a format that names tensors family by family
OWN |= set((ROOT / "benchmarks").glob("ct2*.py"))  # an opponent to which networks are given family by family
OWN |= set((ROOT / "benchmarks").glob("smollm2*.py"))  # of one model, and of an opponent with a family's name
SOURCES = [
    path
    for place in ("rag_jax", "benchmarks", "examples", "train.py")
    for path in ([ROOT / place] if place.endswith(".py") else sorted((ROOT / place).rglob("*.py")))
    if path not in OWN
]
WORD = re.compile(r"[A-Z]+\d*(?![a-z])|[A-Z]?[a-z]+\d*|\d+")


def named(source: str) -> Iterator[str]:
    """Families that code names, in identifiers and in texts.

    Comments and docstrings are free; so are what is imported from transformers, and names of files and of llama.cpp.
    """
    theirs = set(re.findall(r"\w+", " ".join(re.findall(r"from transformers import (\([^)]*\)|.*)", source))))
    before = tokenize.NEWLINE
    for kind, text, (line, _), _, _ in tokenize.generate_tokens(io.StringIO(source).readline):
        if kind in (tokenize.COMMENT, tokenize.NL):
            continue
        is_docstring = kind == tokenize.STRING and before in (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
        before = kind
        if kind not in (tokenize.NAME, tokenize.STRING) or is_docstring or text in theirs:
            continue
        words = WORD.findall(re.sub(r"\w+\.json|llama\.cpp", "", text))
        lower = {word.lower() for word in words}
        if (lower | {word.rstrip("0123456789") for word in lower}) & set(FAMILIES):
            yield f"line {line}: {text}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_other_file_names_a_family(path: Path) -> None:
    assert list(named(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "code",
    [
        "from rag_jax.models import bart",
        "import rag_jax.models.bert",
        "x = BartConfig()",
        "bert_sizes = 1",
        'x = {"model_type": "bert"}',
        "TIED_BART = 1",
        "bart2 = 1",
        "from rag_jax.models.t5 import T5Config",
        "x = T5Config()",
        "T5_TIED = 1",
    ],
)
def test_a_name_in_code_is_found(code: str) -> None:
    assert list(named(f"{code}\n"))


@pytest.mark.parametrize(
    "code",
    [
        '"""BART reads them."""',
        'def f():\n    """As BERT does."""',
        "x = 1  # BART's",
        "from transformers import BartConfig\nx = BartConfig()",
        "barter = albert",
        'x = "sentence_bert_config.json"',
    ],
)
def test_prose_and_other_libraries_are_free(code: str) -> None:
    assert list(named(f"{code}\n")) == []
