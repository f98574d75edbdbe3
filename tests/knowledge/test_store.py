"""The knowledge store: what is built is what is opened, and what does not fit is named."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rag_jax.data.tokenizers import Vocabulary, train_vocabulary
from rag_jax.errors import InputError
from rag_jax.knowledge.passages import Passage
from rag_jax.knowledge.store import Encoder, build, open_store

PASSAGES = [Passage(f"p{i}", f"Town {i}", "people " * (i % 7) + f"and {i} more") for i in range(50)]


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return train_vocabulary([f"{p.title} / {p.text}" for p in PASSAGES], 300)


@pytest.fixture(scope="module")
def encoder(vocabulary: Vocabulary) -> Encoder:
    def tower(params, tokens, key=None):
        del key
        weight = jnp.where(tokens.mask, 1.0, 0.0)
        return jnp.einsum("BQ,BQD->BD", weight, params["word"][tokens.ids]) / tokens.lengths[:, None].astype(
            jnp.float32
        )

    params = {"word": jax.random.normal(jax.random.key(0), (vocabulary.size, 8))}
    return Encoder(tower, params, vocabulary.tokenizer, 32)


def test_vectors_are_each_text_s_own_in_the_order_of_the_texts(encoder: Encoder) -> None:
    texts = [encoder.read(passage) for passage in PASSAGES]
    heard = []
    together = encoder(texts, heard.append)
    alone = np.concatenate([encoder([text]) for text in texts[:10]])
    np.testing.assert_allclose(together[:10], alone, rtol=1e-6)
    assert sum(heard) == len(PASSAGES)


def test_what_is_built_is_what_is_opened(encoder: Encoder, vocabulary: Vocabulary, tmp_path: Path) -> None:
    built = build(tmp_path / "index", PASSAGES, encoder, vocabulary, 16)
    opened = open_store(tmp_path / "index", encoder, vocabulary, 16)
    assert opened.passages == built.passages == PASSAGES
    jax.tree.map(np.testing.assert_array_equal, opened.knowledge, built.knowledge)
    assert opened.knowledge.passages.ids.dtype == np.uint16
    assert opened.rows == {passage.id: row for row, passage in enumerate(PASSAGES)}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index"]


def test_a_store_can_be_moved(encoder: Encoder, vocabulary: Vocabulary, tmp_path: Path) -> None:
    build(tmp_path / "index", PASSAGES, encoder, vocabulary, 16)
    (tmp_path / "index").rename(tmp_path / "moved")
    assert open_store(tmp_path / "moved", encoder, vocabulary, 16).passages == PASSAGES


def test_replacing_changes_one_row(encoder: Encoder, vocabulary: Vocabulary, tmp_path: Path) -> None:
    store = build(tmp_path / "index", PASSAGES, encoder, vocabulary, 16)
    changed = PASSAGES[3]._replace(text="nobody lives here")
    swapped = store.replace(changed, encoder, vocabulary)
    expected = build(tmp_path / "other", [*PASSAGES[:3], changed, *PASSAGES[4:]], encoder, vocabulary, 16)
    np.testing.assert_allclose(swapped.knowledge.vectors, expected.knowledge.vectors, rtol=1e-6)
    for row, length in enumerate(swapped.knowledge.passages.lengths):
        assert (
            swapped.knowledge.passages.ids[row, :length].tolist()
            == expected.knowledge.passages.ids[row, :length].tolist()
        )
    assert store.passages == PASSAGES  # the old store still is what it was
    with pytest.raises(InputError, match="'elsewhere'"):
        store.replace(Passage("elsewhere", "", "x"), encoder, vocabulary)


def test_a_store_of_another_tower_tokenizer_or_length_is_refused(
    encoder: Encoder, vocabulary: Vocabulary, tmp_path: Path
) -> None:
    folder = tmp_path / "index"
    build(folder, PASSAGES, encoder, vocabulary, 16)
    other = dataclasses.replace(encoder, params=jax.tree.map(lambda leaf: leaf + 1, encoder.params))
    with pytest.raises(InputError, match="built with tower"):
        open_store(folder, other, vocabulary, 16)
    with pytest.raises(InputError, match="built with vocabulary"):
        open_store(folder, encoder, train_vocabulary(["something else"], 270), 16)
    with pytest.raises(InputError, match="passage_length 16, the run has 24"):
        open_store(folder, encoder, vocabulary, 24)


def test_damage_is_named(encoder: Encoder, vocabulary: Vocabulary, tmp_path: Path) -> None:
    folder = tmp_path / "index"
    with pytest.raises(InputError, match=r"manifest\.json: no knowledge store there"):
        open_store(folder, encoder, vocabulary, 16)
    build(folder, PASSAGES, encoder, vocabulary, 16)
    vectors = (folder / "vectors.npy").read_bytes()
    (folder / "vectors.npy").write_bytes(vectors[:-100])
    with pytest.raises(InputError, match=r"vectors\.npy: cannot be read"):
        open_store(folder, encoder, vocabulary, 16)
    np.save(folder / "vectors.npy", np.zeros((3, 8), np.float32))
    with pytest.raises(InputError, match=r"vectors\.npy: not the array"):
        open_store(folder, encoder, vocabulary, 16)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest)[:-5])
    with pytest.raises(InputError, match=r"manifest\.json:1: damaged"):
        open_store(folder, encoder, vocabulary, 16)


def test_an_empty_corpus_is_refused(encoder: Encoder, vocabulary: Vocabulary, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least one passage"):
        build(tmp_path / "index", [], encoder, vocabulary, 16)
    assert not (tmp_path / "index").exists()
