"""Guarded answers: moderated questions, filtered passages, moderated answers; categories are the colours of towns."""

import math

import pytest

from rag_jax.data.questions import read_questions
from rag_jax.errors import InputError
from rag_jax.moderation import passage_filters
from rag_jax.moderation.categories import Categories, Category
from rag_jax.moderation.guard import REFUSAL, Guard, GuardedRAG
from rag_jax.moderation.moderator import Moderator
from world import COLOURS


@pytest.fixture(scope="module")
def rag(trained):
    return trained[0]


@pytest.fixture(scope="module")
def asked(towns) -> list[str]:
    return [question.question for question in read_questions(towns.data.evaluation)][:10]


def blocks(rag, *names: str, policy="block") -> Moderator:
    """A moderator of texts that are most likely of these colours."""
    chosen = [Category(name, threshold=0.5, policy=policy if name in names else "pass") for name in COLOURS[1:]]
    return Moderator(rag, Categories(tuple(chosen), COLOURS[0]))


def plain(answers) -> list[tuple[str, float]]:
    return [(each.text, pytest.approx(each.log_prob, abs=1e-5)) for each in answers]


def test_a_guard_that_does_nothing_changes_nothing(rag, asked):
    assert plain(rag.answer(asked, guard=Guard())) == plain(rag.answer(asked))
    assert rag.answer(asked[0], guard=Guard()).text == rag.answer(asked[0]).text


def test_blocked_questions_are_refused_and_the_others_answered(rag, asked):
    moderator, free = blocks(rag, "blue", "green"), rag.answer(asked, num_beams=2, n_best=2)
    policies = [decision.policy for decision in moderator(asked)]
    assert {"pass", "block"} == {*policies}
    guarded = rag.answer(asked, guard=Guard(question=moderator), num_beams=2, n_best=2)
    for policy, answer, expected in zip(policies, guarded, free, strict=True):
        if policy == "block":
            assert (answer.text, answer.refused, answer.passages, answer.tokens) == (REFUSAL, "question", [], [])
            assert math.isnan(answer.log_prob)
            assert [each.role for each in answer.decisions] == ["question"]
        else:
            assert (answer.text, answer.refused, answer.decisions) == (expected.text, None, ())
            assert len(answer.alternatives) == 1


def test_flagged_questions_are_answered_and_say_so(rag, asked):
    moderator = blocks(rag, *COLOURS[1:], policy="flag")
    for decision, answer in zip(moderator(asked), rag.answer(asked, guard=Guard(question=moderator)), strict=True):
        assert answer.refused is None
        assert [each.policy for each in answer.decisions] == (["flag"] if decision.policy == "flag" else [])


@pytest.mark.extended
def test_all_questions_may_be_refused(rag, asked):
    always = Moderator(rag, Categories((Category("blue", threshold=0.0),), "red"))
    assert {answer.refused for answer in rag.answer(asked, guard=Guard(question=always))} == {"question"}


@pytest.mark.extended
def test_prefixes_stay_with_their_questions(rag, asked):
    moderator = blocks(rag, "blue", "green")
    prefixes = [COLOURS[number % len(COLOURS)] for number in range(len(asked))]
    for prefix, answer in zip(
        prefixes, rag.answer(asked, prefixes=prefixes, guard=Guard(question=moderator)), strict=True
    ):
        assert answer.refused or answer.text.startswith(prefix)


def test_samples_are_those_of_a_call_without_a_guard(rag, asked):
    moderator = blocks(rag, "blue", "green")
    assert "block" in {each.policy for each in moderator(asked)}
    how = {"do_sample": True, "seed": 3, "temperature": 3.0}
    for before, after in zip(
        rag.answer(asked, **how), rag.answer(asked, guard=Guard(question=moderator), **how), strict=True
    ):
        assert after.refused or after.text == before.text


def test_only_allowed_passages_are_read(rag, asked):
    store = rag.components.store
    best = [answer.passages[0].id for answer in rag.answer(asked)]
    guard = Guard(allow=passage_filters.denied(passage_filters.listed(ids=best)))
    for answer in rag.answer(asked, guard=guard):
        assert not {passage.id for passage in answer.passages} & {*best}
        assert len(answer.passages) == rag.components.num_docs
    allowed = [store.passages[row].title for row in range(5)]
    guard = Guard(allow=passage_filters.listed(titles=allowed))
    expected = rag.with_passages(list(store.passages)[:5]).answer(asked)
    assert plain(rag.answer(asked, guard=guard)) == plain(expected)


def test_documents_are_listed_by_their_own_id(rag):
    passage = rag.components.store.passages[0]
    chunk = passage._replace(id=f"{passage.id}#2", document=passage.id)
    listed = passage_filters.listed(documents=[passage.id])
    assert listed(passage)
    assert passage_filters.listed(documents=(each for each in [passage.id]))(passage)
    for wrong in ({"titles": "Lyon"}, {"ids": [17]}):
        with pytest.raises(InputError, match=r"(titles|ids) are .*; give a list of strings"):
            passage_filters.listed(**wrong)
    assert listed(chunk)
    assert not listed(passage._replace(id="another"))


class Judge:
    """A moderator of passages by their titles, which counts what it reads."""

    def __init__(self, rag, blocked):
        self.rag, self.blocked, self.read = rag, blocked, []

    def __call__(self, texts, role="passage", **options):
        assert role == "passage"
        self.read += texts
        policies = ["block" if text.split("\n")[0] in self.blocked else "pass" for text in texts]
        decision = blocks(self.rag)("what colour is Norburg")
        return [decision._replace(role=role, policy=policy) for policy in policies]


@pytest.mark.extended
def test_blocked_passages_are_replaced_by_the_next_best_and_judged_once(rag, asked):
    found = rag.search(asked, 4)
    blocked = {each[0].title for each in found} | {each[1].title for each in found}
    judge = Judge(rag, blocked)
    guarded = GuardedRAG(rag, Guard(passage=judge))  # type: ignore[arg-type]
    answers = guarded.answer(asked)
    kept = [passage for passage in rag.components.store.passages if passage.title not in blocked]
    assert plain(answers) == plain(rag.with_passages(kept).answer(asked))
    assert len(judge.read) == len({*judge.read}), "no passage is judged twice"
    before = len(judge.read)
    assert plain(guarded.answer(asked)) == plain(answers)
    assert len(judge.read) == before


@pytest.mark.extended
def test_what_is_left_is_read_and_without_passages_all_is_refused(rag, asked):
    few = rag.with_passages(list(rag.components.store.passages)[:3])
    titles = [passage.title for passage in few.components.store.passages]
    one = few.answer(asked, guard=Guard(passage=Judge(rag, titles[:2])))  # type: ignore[arg-type]
    assert [[passage.title for passage in answer.passages] for answer in one] == [[titles[2]]] * len(asked)
    none = few.answer(asked, guard=Guard(passage=Judge(rag, titles)))  # type: ignore[arg-type]
    assert {answer.refused for answer in none} == {"passages"}


def test_removed_rows_leave_the_index_on_the_device(rag, asked):
    rag.answer(asked)
    guarded = GuardedRAG(rag, Guard(allow=lambda passage: passage.id != rag.components.store.passages[0].id))
    before, after = rag.components.knowledge, guarded.rag.components.knowledge
    assert after.passage_vectors is before.passage_vectors
    assert int(before.alive.sum()) == int(after.alive.sum()) + 1
    grown = guarded.rag.add_passages([rag.components.store.passages[0]])
    assert len(grown.components.store) == len(rag.components.store)
    assert int(grown.components.knowledge.alive.sum()) == int(before.alive.sum()), "the device follows the store"


def test_blocked_answers_are_withheld_and_blocked_alternatives_dropped(rag, asked):
    free = rag.answer(asked, num_beams=3, n_best=3)
    said = free[0].text

    class Censor:
        def __call__(self, texts, role="answer", **options):
            assert role == "answer"
            decision = blocks(rag)("what colour is Norburg")
            return [decision._replace(role=role, policy="block" if text == said else "pass") for text in texts]

    guarded = rag.answer(asked, num_beams=3, n_best=3, guard=Guard(answer=Censor(), refusal="No."))  # type: ignore[arg-type]
    for before, after in zip(free, guarded, strict=True):
        if before.text == said:
            assert (after.text, after.refused, after.alternatives, after.passages) == ("No.", "answer", [], [])
        else:
            assert after.text == before.text
            assert [each.text for each in after.alternatives] == [
                each.text for each in before.alternatives if each.text != said
            ]


@pytest.mark.extended
def test_flagged_answers_and_alternatives_say_so(rag, asked):
    always = Moderator(rag, Categories((Category("blue", threshold=0.0, policy="flag"),), "red"))
    for answer in rag.answer(asked, num_beams=3, n_best=3, guard=Guard(answer=always)):
        for each in (answer, *answer.alternatives):
            assert [(own.role, own.policy) for own in each.decisions] == [("answer", "flag")]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"num_docs": 0}, r"^cannot read K = 0 of \d+ passages"),
        ({"num_docs": 1000}, r"^cannot read K = 1000 of \d+ passages"),
        ({"num_beams": -4}, "num_beams is -4"),
        ({"nonsense": 1}, "unknown key 'nonsense'"),
    ],
)
def test_options_are_checked_before_anything_is_moderated(rag, asked, options, told):
    always = Moderator(rag, Categories((Category("blue", threshold=0.0),), "red"))
    with pytest.raises(InputError, match=told):
        rag.answer(asked, guard=Guard(question=always, passage=always), **options)


def test_an_engine_of_ones_own_is_not_filtered_behind_its_back(rag, asked):
    from rag_jax.evaluation.baselines import RandomPassages, with_engine

    own = with_engine(rag, RandomPassages(rag.components.store.alive.nonzero()[0]))
    first = rag.components.store.passages[0].id
    with pytest.raises(InputError, match=r"^the search engine is one of your own"):
        own.answer(asked, guard=Guard(allow=lambda passage: passage.id != first))


def test_what_a_guard_cannot_do_is_refused(rag, asked):
    from rag_jax.evaluation.baselines import without_passages

    with pytest.raises(
        InputError, match=r"^guard: a closed-book model reads no passages; leave allow and passage out$"
    ):
        GuardedRAG(without_passages(rag), Guard(allow=lambda passage: True))
    with pytest.raises(InputError, match=r"^guard: 0 of \d+ passages are allowed, fewer than K = 2; allow more$"):
        rag.answer(asked, guard=Guard(allow=lambda passage: False))
    with pytest.raises(InputError, match=r"^a guard chooses the passages; leave rows out$"):
        rag.answer(asked[:1], rows=[[0, 1]], guard=Guard())
    with pytest.raises(InputError, match=r"^question 1 is empty"):
        rag.answer([" "], guard=Guard())
