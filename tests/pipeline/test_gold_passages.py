"""Gold passages that the index does not have are told, with counts; ids of another kind are refused."""

import numpy as np
import pytest

from rag_jax.data.questions import Question
from rag_jax.errors import InputError
from rag_jax.index.store import Store, closed_book, from_vectors
from rag_jax.pipeline.gold_passages import check_gold, other_pieces, with_known_evidence
from stores import PASSAGES, reads


def store() -> Store:
    return from_vectors(PASSAGES, np.zeros((len(PASSAGES), 4), np.float32), reads())


def asked(*positive_ids: tuple[str, ...]) -> list[Question]:
    return [Question(str(number), "who?", ("me",), ids) for number, ids in enumerate(positive_ids)]


@pytest.mark.parametrize("questions", [[], asked((), ()), asked(("p1",), (), ("p2", "p3"))])
def test_nothing_is_said_where_all_are_there_or_none_is_named(questions, capsys) -> None:
    check_gold(store(), questions, "questions")
    assert capsys.readouterr() == ("", "")


def test_some_that_are_missing_are_counted(capsys) -> None:
    check_gold(store(), asked(("p1", "x1"), ("x2",), (), ("x1", "x3"), ("p2",)), "training questions")
    assert capsys.readouterr().err == (
        "warning: 3 of the 5 positive_ids of the training questions name no passage of the index (the first is 'x1'): "
        "2 of 5 questions have no gold passage to be found\n"
    )


def test_documents_of_several_passages_are_named(capsys) -> None:
    passages = [*PASSAGES, PASSAGES[1]._replace(id="p1#2", document="p1")]
    held = from_vectors(passages, np.zeros((len(passages), 4), np.float32), reads())
    check_gold(held, asked(("p1",), ("p2",)), "questions")
    told = capsys.readouterr().err
    assert told.startswith(
        "warning: 1 of the 2 positive_ids of the questions name documents of several passages: only the first passage"
    )


def test_the_other_passages_of_a_document() -> None:
    more = [PASSAGES[1]._replace(id=f"p1#{number}", document="p1") for number in (2, 3)]
    passages = [*PASSAGES, *more, PASSAGES[2]._replace(id="p2#2", document="p2")]
    held = from_vectors(passages, np.zeros((len(passages), 4), np.float32), reads())
    n = len(PASSAGES)
    assert other_pieces(held, ["p0", "p1", "p2", "none"]) == {"p0": [], "p1": [n, n + 1], "p2": [n + 2], "none": []}


def test_a_document_whose_own_id_ends_in_a_number_is_not_a_piece_of_itself() -> None:
    passages = [
        PASSAGES[0]._replace(id="part#2", document="part#2"),
        PASSAGES[1]._replace(id="part#2#2", document="part#2"),
    ]
    held = from_vectors(passages, np.zeros((2, 4), np.float32), reads())
    assert other_pieces(held, ["part#2"]) == {"part#2": [1]}
    assert other_pieces(held, []) == {}


def test_evidence_that_the_index_lacks_is_left_out_or_counted(capsys) -> None:
    def needing(*evidence: tuple[str, ...], by: str = "evidence") -> list[Question]:
        return [Question(str(n), "who?", ("me",))._replace(**{by: (each,)}) for n, each in enumerate(evidence)]

    known = needing(("p1",), ("p0", "p2"))
    assert with_known_evidence(store(), known) == known
    assert capsys.readouterr().err == ""
    partly = needing(("p1",), ("wikipedia",))
    assert with_known_evidence(store(), partly) == partly
    assert (
        "1 of the 2 documents of the questions' evidence are not in the index by ids: they" in capsys.readouterr().err
    )
    assert [each.evidence for each in with_known_evidence(store(), needing(("290",), ("291",)))] == [(), ()]
    assert "2 of the 2 documents of the questions' evidence are not in the index by ids (the" in capsys.readouterr().err
    titled = needing((PASSAGES[0].title,), by="evidence_titles")
    assert with_known_evidence(store(), titled) == titled
    assert with_known_evidence(store(), needing(("Nowhere",), by="evidence_titles"))[0].evidence_titles == ()


def test_ids_of_another_kind_are_refused() -> None:
    with pytest.raises(InputError) as caught:
        check_gold(store(), asked(("7",), ("8", "9"), ()), "evaluation questions")
    assert str(caught.value) == (
        "none of the 3 positive_ids of the evaluation questions is a passage of the index "
        "(the first is '7', the index begins with 'p0'); use the ids of the corpus, or leave positive_ids out"
    )


def test_a_removed_passage_is_missing(capsys) -> None:
    check_gold(store().remove_rows([1]), asked(("p1",), ("p2",)), "questions")
    assert "1 of 2 questions have no gold passage" in capsys.readouterr().err


def test_closed_book_has_no_gold_passages(capsys) -> None:
    check_gold(closed_book(4, reads().tokenizer), asked(("7",)), "questions")
    assert capsys.readouterr() == ("", "")
