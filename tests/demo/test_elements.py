"""The elements' passages and questions, on the real database: what a corpus must keep, checked for every question."""

import importlib.util
from collections import Counter
from pathlib import Path

import pytest

from rag_jax.corpus import read_passages
from rag_jax.corpus.passage import Passage
from rag_jax.data.questions import Question, read_questions
from rag_jax.demo import element_questions
from rag_jax.demo.data import CORPUS, own_folder, write_own
from rag_jax.demo.element_questions import HELD_OUT, KINDS, LONGEST, kind, questions, write_corpus
from rag_jax.demo.elements import Element, listed, load_elements, passages, texts
from rag_jax.errors import InputError


@pytest.fixture(scope="module")
def elements() -> list[Element]:
    return load_elements()


@pytest.fixture(scope="module")
def corpus(elements: list[Element]) -> dict[str, Passage]:
    return {passage.id: passage for passage in passages(elements)}


@pytest.fixture(scope="module")
def asked(elements: list[Element]) -> dict[str, list[Question]]:
    return questions(elements)


@pytest.fixture(scope="module")
def everything(asked: dict[str, list[Question]]) -> list[Question]:
    return [question for part in asked.values() for question in part]


def number(question: Question) -> str:
    return question.id.split("-")[1]


def test_an_element_has_the_facts_of_the_database(elements: list[Element]) -> None:
    assert [element.number for element in elements] == list(range(1, 119))
    oxygen, copper = elements[7], elements[28]
    assert (oxygen.name, oxygen.symbol, oxygen.year) == ("Oxygen", "O", "1774")
    assert (oxygen.discoverers, oxygen.places) == ("Joseph Priestly, Carl Wilhelm Scheele", ("England", "Sweden"))
    assert (copper.year, copper.places, copper.producers) == ("", (), ("Chile", "Peru", "China"))
    assert elements[31].producers == ("China", "Russia", "Germany")  # "Germany (likely)"


def test_fragments_become_sentences(elements: list[Element]) -> None:
    assert texts(elements[2])["history"] == (
        "Lithium (symbol Li, atomic number 3) was discovered in 1817 in Sweden by Johann Arfwedson. "
        "Origin of the name: Greek: lithos (stone)."
    )
    assert texts(elements[28])["history"].startswith("Copper (symbol Cu, atomic number 29) was known to the ancients. ")
    assert texts(elements[28])["use"].endswith("The largest producers of copper are Chile, Peru and China.")
    assert "description" not in texts(elements[117])


def test_every_passage_is_whole_sentences(elements: list[Element], corpus: dict[str, Passage]) -> None:
    assert len(corpus) == len(passages(elements)) > 2 * len(elements)
    for passage in corpus.values():
        assert passage.title
        assert passage.text[-1] in ".!?"
        assert "  " not in passage.text
        assert ".." not in passage.text


@pytest.mark.parametrize(("names", "text"), [(["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")])
def test_names_are_listed(names: list[str], text: str) -> None:
    assert listed(names) == text


def test_answers_occur_in_the_gold_passage(everything: list[Question], corpus: dict[str, Passage]) -> None:
    for question in everything:
        (gold,) = question.positive_ids
        assert question.answers
        for answer in question.answers:
            assert answer in f"{corpus[gold].title} / {corpus[gold].text}", question


def test_answers_are_short(everything: list[Question]) -> None:
    for question in everything:
        limit = 80 if kind(question) == "use" else LONGEST
        assert all(0 < len(answer) <= limit for answer in question.answers), question


def test_splits_share_no_element(asked: dict[str, list[Question]]) -> None:
    parts = {part: set(map(number, part_questions)) for part, part_questions in asked.items()}
    assert {part: len(parts[part]) for part in HELD_OUT} == HELD_OUT
    assert sum(map(len, parts.values())) == len(set.union(*parts.values()))


def test_a_question_has_one_gold_element(everything: list[Question]) -> None:
    elements: dict[str, set[str]] = {}
    for question in everything:
        elements.setdefault(question.question, set()).add(number(question))
    assert all(len(owners) == 1 for owners in elements.values())


def test_a_question_does_not_state_its_answer(everything: list[Question], corpus: dict[str, Passage]) -> None:
    for question in everything:
        title = corpus[question.positive_ids[0]].title
        if kind(question).startswith("of_"):
            assert question.answers == (title,)
            assert title not in question.question
        else:
            assert title.lower() in question.question


def test_all_kinds_are_asked_and_training_uses_all_phrasings(asked: dict[str, list[Question]]) -> None:
    for part, part_questions in asked.items():
        assert len({question.id for question in part_questions}) == len(part_questions)
        if part != "dev":
            assert {kind(question) for question in part_questions} == set(KINDS)
        phrasings = Counter(question.id.rpartition("-")[0] for question in part_questions)
        for id, count in phrasings.items():
            assert count == (len(KINDS[id.split("-")[2]].phrasings) if part == "train" else 1)
    assert len(asked["test"]) > 100


@pytest.mark.parametrize(
    ("origin", "kind", "answers"),
    [
        ("Greek: lithos (stone).", "meaning", ("stone",)),
        ("Greek: hydro (water) and genes (generate)", "meaning", None),
        ("German: zink (German for tin).", "meaning", None),
        ('Greek: beryllos, "beryl" (a mineral).', "meaning", None),
        ("Greek: kadmeia (ancient name for calamine (zinc oxide)).", "meaning", None),
        ("English: pot ash; symbol from Latin: kalium, (alkali).", "meaning", None),
        ("English: pot ash; symbol from Latin: kalium, (alkali).", "language", ("English",)),
        ("Latin: magnes (magnet); Italian: manganese.", "language", ("Latin", "Italian")),
        ("Named for the planet Uranus.", "namesake", ("the planet Uranus", "Uranus")),
        ("Named in honor of Ernest O. Lawrence, inventor of the cyclotron.", "namesake", ("Ernest O. Lawrence",)),
        ("Named after the asteroid, Pallas, discovered in 1803.", "namesake", None),
        ("From the mineral, zircon.", "namesake", None),
        ("Greek: argos (inactive).", "namesake", None),
    ],
)
def test_origins_of_names(elements: list[Element], origin: str, kind: str, answers: tuple[str, ...] | None) -> None:
    fact = KINDS[kind].fact(elements[0]._replace(name_origin=origin))
    assert (fact and fact.answers) == answers


@pytest.mark.parametrize(
    ("uses", "answers"),
    [
        ("Used in batteries. Also for certain kinds of glass.", ("batteries",)),
        ("Primarily for lighting.", None),
        ("Used in glass as silicon dioxide (SiO2).", None),
        (f"Used for {'very ' * 9}little.", None),
    ],
)
def test_uses(elements: list[Element], uses: str, answers: tuple[str, ...] | None) -> None:
    fact = KINDS["use"].fact(elements[0]._replace(uses=uses))
    assert (fact and fact.answers) == answers


def test_any_discoverer_is_an_answer(elements: list[Element]) -> None:
    fact = KINDS["discoverer"].fact(elements[0]._replace(discoverers="A. Ghiorso, et al"))
    assert fact
    assert fact.answers == ("A. Ghiorso, et al", "A. Ghiorso")
    assert KINDS["discoverer"].fact(elements[0]._replace(discoverers="Known to the ancients.")) is None


def test_the_files_read_back_and_are_written_once(
    elements: list[Element], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = own_folder(tmp_path, "data", "elements")
    write_own(folder, CORPUS, write_corpus)
    assert list(read_passages(tmp_path / "data" / "passages.jsonl", 1_000)) == passages(elements)
    for part, expected in questions(elements).items():
        assert read_questions(tmp_path / "data" / f"{part}.jsonl") == expected
    written = {name: (folder.path / name).stat().st_mtime_ns for name in CORPUS}
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "checkpoints").mkdir()  # the demo has been trained in its workdir
    with monkeypatch.context() as patched:
        patched.setattr(element_questions, "load_elements", None)
        write_own(folder, CORPUS, write_corpus)
    assert {name: (folder.path / name).stat().st_mtime_ns for name in CORPUS} == written

    (folder.path / "test.jsonl").unlink()
    write_own(folder, CORPUS, write_corpus)
    assert read_questions(folder.path / "test.jsonl") == questions(elements)["test"]
    (folder.path / "dev.jsonl").write_text("mine")
    with pytest.raises(InputError, match=r"dev\.jsonl: not written by this command, or changed since; move it away"):
        write_own(folder, CORPUS, write_corpus)
    assert (folder.path / "dev.jsonl").read_text() == "mine"
    with pytest.raises(InputError, match=r"data: holds dev\.jsonl, but no data of this demo; choose another --workdir"):
        own_folder(tmp_path, "data", "cities").check(CORPUS)


def test_writing_the_files_is_resumed(elements: list[Element], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = own_folder(tmp_path, "data", "elements")

    def killed(old: Path, new: Path) -> None:
        """Stop before the second file is in place."""
        if new == folder.path / CORPUS[1]:
            raise KeyboardInterrupt
        Path(old).rename(new)

    with monkeypatch.context() as patched:
        patched.setattr("rag_jax.data.own_folder.os.replace", killed)
        with pytest.raises(KeyboardInterrupt):
            write_own(folder, CORPUS, write_corpus)
    assert (folder.path / CORPUS[0]).exists()
    assert not (folder.path / CORPUS[1]).exists()
    write_own(folder, CORPUS, write_corpus)
    for part, expected in questions(elements).items():
        assert read_questions(folder.path / f"{part}.jsonl") == expected


def test_the_same_seed_asks_the_same_questions(elements: list[Element], asked: dict[str, list[Question]]) -> None:
    assert questions(elements) == asked
    assert questions(elements, seed=1) != asked


def test_without_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        InputError, match=r"^the elements need the package mendeleev: pip install --no-deps mendeleev=="
    ):
        write_corpus(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_damaged_database(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "elements.db").write_text("no database " * 100)
    spec = importlib.util.spec_from_file_location("mendeleev", tmp_path / "__init__.py")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(InputError, match=r"elements\.db: cannot be read \(file is not a database\); run pip install"):
        load_elements()
