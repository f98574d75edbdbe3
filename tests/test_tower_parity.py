"""The README's own commands over DPR's towers, from the words in a file to numbers, against transformers."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import transformers

import oracle
import pretrained
from oracle import relative, torch
from rag_jax.cli import main
from rag_jax.config.config import Config, Data, Generator, Retriever
from rag_jax.corpus.passage import Passage
from rag_jax.errors import InputError
from rag_jax.index import manifest
from rag_jax.index.store import open_store
from rag_jax.models.bert import BertConfig
from rag_jax.pipeline.assembly import compose
from rag_jax.pipeline.pretrained import load_generator_tokenizer
from rag_jax.rag import RAG

PASSAGES = [
    Passage("1", "Origin of Species", "On the Origin of Species was written by Charles Darwin."),
    Passage("2", "Jane Austen", "Emma, a novel of 1815 " + "about youthful hubris and misconstrued romance " * 6),
    Passage("3", "A title that is longer than all that is said of it " * 3, "Short."),
    Passage("4", "Long and long " * 12, "as long as that " * 12),
    Passage("5", "", "A passage without a title."),
    Passage("6", "Zürich", "Zürich liegt am See; 亀, «naïve»? 3.5 %"),
]
QUESTION = "who wrote the Origin of Species?"
WORDS = sorted({*"abcdefghijklmnopqrstuvwxyz.,;0123456789", "title", "passage", "origin", "species", "wrote", "the"})
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *(f"##{word}" for word in WORDS)]
LENGTH = 48


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Both of DPR's encoders and a generator, as transformers saves them, and DPR's tsv."""
    folder = tmp_path_factory.mktemp("dpr")
    sizes = BertConfig(len(VOCABULARY), width=16, layers=2, heads=2, ffn_width=24, max_positions=LENGTH, init_std=0.3)
    for seed, (place, kind) in enumerate(
        (("question", transformers.DPRQuestionEncoder), ("passages", transformers.DPRContextEncoder))
    ):
        oracle.tower(kind, sizes, seed)[0].save_pretrained(folder / place)
        transformers.BertTokenizer(vocab={word: i for i, word in enumerate(VOCABULARY)}).save_pretrained(folder / place)
    pretrained.save_networks(folder / "others")
    (folder / "others" / "bart").rename(folder / "bart")
    rows = [f'{passage.id}\t"{passage.text}"\t"{passage.title}"' for passage in PASSAGES]
    (folder / "psgs_w100.tsv").write_text("\n".join(["id\ttext\ttitle", *rows]) + "\n")
    return folder


def passage_vectors(folder: Path) -> np.ndarray:
    """As transformers' example of RAG makes them; a passage without a title as DPR's own code has it."""
    model = transformers.DPRContextEncoder.from_pretrained(folder / "passages").eval()
    tokenizer, found = transformers.BertTokenizer.from_pretrained(folder / "passages"), []
    for _, title, text, _ in PASSAGES:
        read = (title, text) if title else (text,)
        ids = tokenizer(*read, truncation=True, padding="longest", max_length=LENGTH, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            found.append(model(ids, return_dict=True).pooler_output[0].numpy())
    return np.stack(found)


def question_vector(folder: Path) -> np.ndarray:
    model = transformers.DPRQuestionEncoder.from_pretrained(folder / "question").eval()
    ids = transformers.BertTokenizer.from_pretrained(folder / "question")(QUESTION, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        return model(ids).pooler_output[0].numpy()


@pytest.fixture(scope="module")
def index(folder: Path) -> Path:
    towers = "--tower", folder / "passages", "--generator", folder / "bart", "--max-length", LENGTH, "--max-passage", 64
    command = "index", folder / "psgs_w100.tsv", "--out", folder / "wiki", *towers
    main([str(each) for each in command])
    return folder / "wiki"


def test_the_vectors_that_rag_jax_index_makes_are_those_of_transformers(folder: Path, index: Path) -> None:
    store = open_store(index, None, None)
    assert list(store.passages) == PASSAGES
    theirs = passage_vectors(folder)
    assert relative(store.passage_vectors.whole, theirs) < 1e-5
    joined = [f"{p.title}. {p.text}" for p in PASSAGES]  # another input
    found = RAG.from_networks(folder / "question", folder / "bart", passage_tower=folder / "passages")
    assert relative(found.components.bi_encoder.required_passage_encoder(joined), theirs) > 0.1


def test_what_rag_jax_search_finds_has_the_scores_of_transformers(folder: Path, index: Path, capsys) -> None:
    main(["search", QUESTION, "--index", str(index), "--tower", str(folder / "question"), "--num-docs", "6"])
    found = [line.split()[:2] for line in capsys.readouterr().out.splitlines() if re.match(r"-?\d+\.\d{4} ", line)]
    scores = passage_vectors(folder) @ question_vector(folder)
    assert [key for _, key in found] == [PASSAGES[row].id for row in np.argsort(-scores)]
    np.testing.assert_allclose([float(score) for score, _ in found], np.sort(scores)[::-1], atol=1e-3)


def test_the_facade_makes_the_same_vectors_and_says_what_is_cut(folder: Path, capsys) -> None:
    rag = RAG.from_networks(folder / "question", folder / "bart", passage_tower=folder / "passages")
    held = rag.with_passages(PASSAGES).components.store
    assert relative(held.passage_vectors.whole, passage_vectors(folder)) < 1e-5
    said = capsys.readouterr().err
    for reader in ("tower reads 48", "generator reads 80"):
        assert re.search(f"warning: the {reader} tokens of a passage; 3 passages are longer, [0-9]+ tokens", said)
    assert relative(rag.encode([QUESTION])[0], question_vector(folder)) < 1e-5


def test_a_store_counts_what_was_cut_and_shows_it(folder: Path, index: Path, capsys) -> None:
    tokenizer = transformers.BertTokenizer.from_pretrained(folder / "passages")
    pairs = [(title, text) if title else (text,) for _, title, text, _ in PASSAGES]
    lost = [max(0, len(tokenizer(*pair)["input_ids"]) - LENGTH) for pair in pairs]
    held = manifest.read(index)
    assert held.tower["template"] == "pair"
    assert held.truncated() == (sum(n > 0 for n in lost), sum(lost))
    (key,) = held.generators
    words = load_generator_tokenizer(folder / "bart").passages([(title, text) for _, title, text, _ in PASSAGES])
    unread = [max(0, len(ids) - 64) for ids in words]
    assert held.truncated(f"tokens-{key}") == (sum(n > 0 for n in unread), sum(unread))
    assert all(sum(each) for each in (lost, unread))
    main(["index", "--info", str(index)])
    told = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert f"reads pair; 48 tokens of a passage; 3 passages are longer, {sum(lost):,} tokens are not read" in told


def test_a_store_of_another_convention_is_refused(folder: Path, index: Path) -> None:
    towers = Retriever(str(folder / "question"), str(folder / "passages"), max_question=40, max_passage=LENGTH)
    config = Config(Data(index=index), towers, Generator(str(folder / "bart"), max_passage=64, max_input=80))
    assert list(compose(config).store.passages) == PASSAGES
    other = replace(config, retriever=replace(towers, passage_template="{title}. {text}"))
    told = "built by a tower with template 'pair', the run's has '{title}. {text}'; set passage_template to 'pair'"
    with pytest.raises(InputError, match=re.escape(f"{index}: {told}")):
        compose(other)


def test_dpr_s_passage_tower_is_not_asked_questions(folder: Path, index: Path, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["search", QUESTION, "--index", str(index)])
    assert ended.value.code == 2
    assert "passages: reads passages only; name its question tower: --tower" in capsys.readouterr().err
