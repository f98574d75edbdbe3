"""Texts in packed groups of similar length."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_jax.config.config import Mesh
from rag_jax.config.contrastive import BiEncoder, Contrast, ContrastiveConfig, Data
from rag_jax.contrastive.layout import Layout, Size, usual_layout
from rag_jax.core.packing import unpacked
from rag_jax.types import PackedInputs


def rows_of(lengths: list[int]) -> list[list[int]]:
    """Token rows of these lengths, each of its own token."""
    return [[number + 1] * length for number, length in enumerate(lengths)]


def layout(lengths: tuple[int, ...], *, longest: int, num_packs: int | None = None) -> Layout:
    return Layout(Size(8, 8), tuple(Size(each, each) for each in lengths), longest, longest, num_packs)


@given(
    st.lists(st.integers(1, 40), min_size=12, max_size=12),
    st.sampled_from([(8, 40), (8, 16, 40), (40,)]),
    st.sampled_from([None, 1, 2]),
)
def test_every_text_is_found_at_its_place_whole(lengths: list[int], wanted: tuple[int, ...], packs: int | None) -> None:
    tokens = rows_of(lengths)
    questions, groups, place = layout(wanted, longest=40, num_packs=packs)(tokens[:4], tokens)
    joined = [(np.asarray(row), int(length)) for group in groups for row, length in zip(*unpacked(group), strict=True)]
    assert sorted(place.tolist()) == list(range(12))
    asked = list(zip(*map(np.asarray, unpacked(questions)), strict=True))
    for row, (ids, length) in zip([*tokens, *tokens[:4]], [*(joined[where] for where in place), *asked], strict=True):
        assert ids[:length].tolist() == row
        assert not ids[length:].any()


def test_a_group_is_padded_to_its_length_and_beyond_it_only_where_a_passage_is_longer() -> None:
    def shapes(*lengths: int) -> list[tuple[int, ...]]:
        return [group.ids.shape for group in map(unpacked, layout((8, 24), longest=31)([[1]], rows_of([*lengths]))[1])]

    assert shapes(3, 4, 17, 30) == [(2, 8), (2, 31)]  # 30 rounds up to 32, which is too long
    assert shapes(3, 4, 17, 18) == [(2, 8), (2, 24)]


@pytest.mark.parametrize("devices", [None, 1, 8])
def test_nearly_all_batches_fit_the_usual_layout_with_little_padding(devices: int | None) -> None:
    lengths = np.minimum(np.random.default_rng(3).gamma(4.0, 20.0, 5_000).astype(int) + 1, 256)
    mesh, chunk = Mesh(data=devices or 1), 1 if devices is None else None
    retriever = BiEncoder("tower", max_question=256, max_passage=256)
    contrast = Contrast(hard_negatives=1, chunk=chunk, length_groups=4)
    usual = usual_layout(ContrastiveConfig(Data(), retriever, contrast, mesh=mesh, batch_size=128), lengths, lengths)
    assert usual.num_packs == devices
    assert list(usual.passages) == sorted(usual.passages)
    rng, shapes, slots, read = np.random.default_rng(4), [], 0, 0
    for _ in range(100):
        batch = rng.choice(lengths, 256)
        _, groups, _ = usual(rows_of(batch[:128].tolist()), rows_of(batch.tolist()))
        arrays = [group.source if isinstance(group, PackedInputs) else group.ids for group in groups]
        shapes.append(tuple(array.shape for array in arrays))
        slots += sum(array.size for array in arrays)
        read += int(batch.sum())
    most = max(shapes.count(shape) for shape in shapes)
    assert most >= 80
    assert slots / read < {None: 1.9, 1: 1.1, 8: 1.2}[devices]


def test_a_pack_has_more_room_only_where_more_is_needed() -> None:
    def slots(mean: int) -> tuple[int, ...]:
        sizes = (Size(32, mean),)
        (group,) = Layout(Size(8, 8), sizes, 32, 32, 1)([[1]], rows_of([3, 4, 17, 30]))[1]
        assert isinstance(group, PackedInputs)
        return group.source.shape

    assert slots(14) == (1, 56)
    assert slots(13) == (1, 64)  # 14 tokens in the mean, rounded up to 16
