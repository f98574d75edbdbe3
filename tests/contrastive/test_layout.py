"""Passages in groups of similar length."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from rag_jax.contrastive.batches import STEP, Collator, Packs, group_lengths, grouped, pack_length, packed, passage_rows
from rag_jax.contrastive.examples import Examples
from rag_jax.core import packing
from rag_jax.corpus.passage import Passage
from rag_jax.data.question import Question
from rag_jax.data.tokenizers import pad
from rag_jax.index.encoder import TextEncoder
from rag_jax.index.store import without_vectors


def rows_of(lengths: list[int]) -> list[list[int]]:
    """Token rows of these lengths, each of its own token."""
    return [[number + 1] * length for number, length in enumerate(lengths)]


@given(
    st.lists(st.integers(1, 40), min_size=12, max_size=12),
    st.sampled_from([(8, 40), (8, 16, 40), (40,)]),
    st.sampled_from([1, 2]),
)
def test_every_passage_is_found_at_its_place_whole(lengths: list[int], wanted: tuple[int, ...], num_packs: int) -> None:
    tokens = rows_of(lengths)
    groups, place = grouped(tokens, wanted, 40, num_packs)
    joined = [(np.asarray(row), int(length)) for group in groups for row, length in zip(*group, strict=True)]
    assert sorted(place.tolist()) == list(range(12))
    for row, where in zip(tokens, place, strict=True):
        ids, length = joined[where]
        assert ids[:length].tolist() == row
        assert not ids[length:].any()


@given(st.lists(st.integers(1, 40), min_size=12, max_size=12))
def test_groups_are_equal_in_size_and_ascend(lengths: list[int]) -> None:
    groups, _ = grouped(rows_of(lengths), (8, 16, 24), longest=40)
    assert [len(group.lengths) for group in groups] == [4, 4, 4]
    in_order = np.concatenate([np.asarray(group.lengths) for group in groups])
    assert (np.diff(in_order) >= 0).all()


def test_a_group_is_padded_to_its_length_and_beyond_it_only_where_a_passage_is_longer() -> None:
    groups, _ = grouped(rows_of([3, 4, 17, 30]), (8, 24), longest=31)
    assert [group.ids.shape for group in groups] == [(2, 8), (2, 31)]  # 30 rounds up to 32, which is too long
    groups, _ = grouped(rows_of([3, 4, 17, 18]), (8, 24), longest=31)
    assert [group.ids.shape for group in groups] == [(2, 8), (2, 24)]


def test_nearly_all_batches_fit_the_groups_and_their_padding_is_little() -> None:
    lengths = np.minimum(np.random.default_rng(3).gamma(4.0, 20.0, 5_000).astype(int) + 1, 256)
    wanted = group_lengths(lengths, size=64, groups=4, longest=256)
    assert list(wanted) == sorted(wanted)
    assert all(length % STEP == 0 for length in wanted)
    rng, fitting, padded, read = np.random.default_rng(4), 0, 0, 0
    for _ in range(100):
        batch = rng.choice(lengths, 64)
        groups, _ = grouped(rows_of(batch.tolist()), wanted, longest=256)
        fitting += [group.ids.shape[1] for group in groups] == list(wanted)
        padded += sum(group.ids.size for group in groups)
        read += int(batch.sum())
    assert fitting >= 90
    assert padded / read < 1.9
    assert 256 * 64 * 100 / read > 2.8  # of one group that is padded to the longest


def test_the_gold_passages_come_first_then_every_question_s_hard_negatives() -> None:
    drawn = np.asarray([[0, 10, 11, 12], [1, 20, 21, -1]], np.int32)
    assert passage_rows(drawn).tolist() == [10, 20, 11, 12, 21, -1]


def test_questions_keep_their_order() -> None:
    questions = [Question(str(i), "q", ("a",), (f"p{i}",)) for i in range(4)]
    tokens, passages = rows_of([5, 2, 7, 3]), [Passage(f"p{i}", "", "word " * (4 - i)) for i in range(4)]
    examples = Examples(questions, tokens, [[0], [1], [2], [3]], [[]] * 4)
    encoder = TextEncoder(None, {}, whitespace_tokenizer(), 16, "{text}")  # pyright: ignore[reportArgumentType]
    collate = Collator(examples, without_vectors(passages), encoder, (8, 16), 8, 16)
    drawn = np.asarray([[2, 2], [0, 0], [3, 3], [1, 1]], np.int32)
    batch = collate(drawn, np.ones((4, 4), bool), None)
    assert np.asarray(batch.questions.lengths).tolist() == [7, 5, 3, 2]
    assert batch.questions.ids.shape == (4, 8)
    joined = np.concatenate([np.asarray(group.lengths) for group in batch.passages])
    assert joined[np.asarray(batch.place)].tolist() == [2, 4, 1, 3]


def whitespace_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "word": 1}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


@settings(deadline=None, max_examples=20)  # each size is a compilation
@given(st.lists(st.integers(1, 12), min_size=8, max_size=8), st.sampled_from([1, 2, 4]), st.integers(1, 12))
def test_rows_are_packed_as_the_core_packs_them(lengths: list[int], num_packs: int, usual: int) -> None:
    rows = pad(rows_of(lengths), 12, 0)
    found = packed(rows, Packs(num_packs, usual))
    expected = packing.pack(jax.tree.map(jnp.asarray, rows), num_packs, found.source.shape[1])
    assert np.array_equal(found.num_tokens, expected.num_tokens)
    held = np.arange(found.source.shape[1])[None, :] < np.asarray(found.num_tokens)[:, None]
    assert np.array_equal(np.asarray(found.source)[held], np.asarray(expected.source)[held])
    mask = np.asarray(rows.mask)
    assert np.array_equal(np.asarray(found.slot)[mask], np.asarray(expected.slot)[mask])
    states = np.asarray(rows.ids)[:, :, None].astype(np.float32)
    on_device = jax.tree.map(jnp.asarray, found)
    again = packing.to_rows(on_device, packing.to_packs(on_device, jnp.asarray(states)))
    np.testing.assert_array_equal(again, np.where(mask[:, :, None], states, 0))


def test_nearly_all_packed_batches_have_the_usual_size_with_little_padding() -> None:
    lengths = np.minimum(np.random.default_rng(3).gamma(4.0, 20.0, 5_000).astype(int) + 1, 256)
    for num_packs in (1, 8):
        packs = Packs(num_packs, pack_length(lengths, 128, num_packs))
        rng, slots, read = np.random.default_rng(4), [], 0
        for _ in range(100):
            batch = rng.choice(lengths, 128)
            (group,), _ = grouped(rows_of(batch.tolist()), (256,), 256, num_packs)
            slots.append(packed(group, packs).source.size)
            read += int(batch.sum())
        assert slots.count(128 * packs.length) >= 80
        assert sum(slots) / read < (1.08 if num_packs == 1 else 1.12)


def test_a_pack_has_more_room_only_where_more_is_needed() -> None:
    rows = pad(rows_of([3, 4, 17, 30]), 32, 0)
    assert packed(rows, Packs(1, 14)).source.shape == (1, 56)
    assert packed(rows, Packs(1, 13)).source.shape == (1, 64)  # 14 tokens in the mean, rounded up to 16
