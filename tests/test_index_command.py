"""`rag-jax index` and `plan`, as they are typed, and what `rag-jax search` finds then."""

import gzip
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from index_commands import SMALL, TOWNS, built, refused, run
from rag_jax.commands.query_vectors import question_encoder
from rag_jax.config.config import Config
from rag_jax.data.files import format_bytes
from rag_jax.data.questions import read_questions
from rag_jax.index import manifest
from rag_jax.index.engines import store_engines
from rag_jax.index.engines.engine import Queries
from rag_jax.index.placement import padded_rows
from rag_jax.index.store import open_store


@pytest.fixture
def tower(towns: Config) -> str:
    return towns.retriever.tower


@pytest.fixture
def index(towns: Config, tmp_path: Path, capsys) -> Path:
    return built(capsys, towns, tmp_path / "index")


def test_a_corpus_becomes_a_store_that_can_be_looked_at_and_searched(index, tower, capsys) -> None:
    told = run(capsys, "index", "--info", index)
    for line in (r"passages +256", r"vectors +32 x float32", r"segments +3", r"change +1: build, 256"):
        assert re.search(line, told), line
    assert f'Next: rag-jax search "QUERY" --index {index}' in told.replace("\n", "")
    found = run(capsys, "search", "what colour is Norburg", "--index", index, "--num-docs", "2")
    assert found.splitlines()[3].split()[1] == "Norburg"
    assert "device: 256 passages" in found
    assert "recall@2 1.000" in found
    asked = ("search", "Norburg", "--index", index)
    assert "--num-docs is 257" in refused(capsys, *asked, "--num-docs", 257)
    assert "--tower is empty; name a checkpoint" in refused(capsys, *asked, "--tower", "")


def test_every_engine_is_built_measured_and_searched(index, capsys) -> None:
    told = run(capsys, "index", "--out", index, "--faiss", "Flat", "--bm25", "--precisions", "int8", "bfloat16")
    assert re.search(r"engine +faiss Flat: recall@1 1\.000, recall@5 1\.000", told)
    assert re.search(r"engine +int8: recall@1 0\.\d+", told)
    assert re.search(r"engine +bm25\n", re.sub(" +\n", "\n", told))
    for engine in ("faiss", "bm25", "hybrid"):
        found = run(capsys, "search", "Norburg", "--index", index, "--engine", engine, "--num-docs", "3")
        assert found.splitlines()[3].split()[1] == "Norburg"
    found = run(capsys, "search", "Norburg", "--index", index, "--engine", "bm25", "--exclude", "Norburg")
    assert "Norburg /" not in found


def test_recall_is_measured_with_real_questions_and_the_tower_that_reads_them(index, towns, tmp_path, capsys) -> None:
    other, texts = tmp_path / "other", [each.question for each in read_questions(towns.data.evaluation)]
    shutil.copytree(towns.retriever.tower, other)
    (other / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    measured = []
    for tower, options in ((None, ()), (str(other), ("--question-tower", other))):
        told = run(capsys, "index", "--out", index, "--faiss", "SQ4", "--questions", towns.data.evaluation, *options)
        measured.append(manifest.read(index).engines["faiss"]["recall"])
        store = open_store(index, None, None)
        vectors, faiss = question_encoder(store, tower)(texts), store_engines.open_faiss(store)
        exact = np.argsort(-vectors @ store.passage_vectors.whole.T, axis=1).tolist()
        for k in (1, 5, 10, 20, 100):
            found = faiss.search(Queries(texts, vectors), k).rows.tolist()
            shares = [len({*a} & {*b[:k]}) / k for a, b in zip(found, exact, strict=True)]
            assert measured[-1][f"recall@{k}"] == pytest.approx(np.mean(shares))
        assert f"recall@5 {measured[-1]['recall@5']:.3f}" in told
    measured.append(store_engines.measure_recall(faiss, store, store_engines.passage_queries(store)))
    assert len({*map(str, measured)}) == 3, "passages as queries have another"


def test_the_same_command_again_does_nothing_and_another_does_not_overwrite(index, towns, tower, capsys) -> None:
    before = manifest.read(index)
    command = ("index", towns.data.passages, "--out", index, "--tower", tower, *SMALL)
    assert "is built from this corpus with these options; nothing to do" in run(capsys, *command, "--segment", "7")
    assert "holds another store; add --change swap" in refused(capsys, *command, "--dtype", "float16")
    assert manifest.read(index) == before
    run(capsys, "index", "--out", index, "--bm25")
    told = run(capsys, *command, "--dtype", "float16", "--change", "swap")
    assert f"{index}: the former store also had bm25; --faiss, --bm25 and --precisions add that to this one" in told
    assert manifest.read(index).dtype == "float16"


def test_the_name_of_a_document_is_part_of_it(tower, tmp_path, capsys) -> None:
    (tmp_path / "notes.txt").write_text("# Norburg\nNorburg is painted red .")
    command = ("--out", tmp_path / "index", "--tower", tower, *SMALL)
    run(capsys, "index", tmp_path / "notes.txt", *command)
    assert "nothing to do" in run(capsys, "index", tmp_path / "notes.txt", *command)
    (tmp_path / "notes.txt").rename(tmp_path / "notes.md")
    assert "holds another store" in refused(capsys, "index", tmp_path / "notes.md", *command)
    run(capsys, "index", tmp_path / "notes.md", *command, "--change", "swap")
    assert [each.id for each in open_store(tmp_path / "index", None, None).live_passages()] == ["notes.md"]


@pytest.mark.parametrize("out", [".", "project", "link", "project/thesis/chapters/one.tex", "nothing"])
def test_a_folder_that_holds_anything_else_is_refused_before_anything_is_read(
    out, towns, tmp_path, capsys, monkeypatch
) -> None:
    chapter = tmp_path / "project" / "thesis" / "chapters" / "one.tex"
    chapter.parent.mkdir(parents=True)
    chapter.write_text("mine")
    (tmp_path / "link").symlink_to("project")
    (tmp_path / "nothing").symlink_to("nowhere")
    monkeypatch.chdir(tmp_path / "project" if out == "." else tmp_path)
    before = sorted(tmp_path.rglob("*"))
    for change in ((), ("--change", "swap"), ("--skip-bad",)):
        told = refused(capsys, "index", towns.data.passages, "--out", out, "--tower", "is-not-loaded", *change)
        assert re.fullmatch(rf"error: {re.escape(out)}: .+; (name|make) .+", told)
    assert sorted(tmp_path.rglob("*")) == before
    assert chapter.read_text() == "mine"


def test_bad_lines_are_listed_in_the_store_and_nowhere_else(tower, tmp_path, capsys) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "index.bad.log").symlink_to("mine.txt")
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(town) + "\n" for town in TOWNS) + "no JSON\n")
    command = ("index", tmp_path / "corpus.jsonl", "--out", tmp_path / "index", "--tower", tower, *SMALL, "--skip-bad")
    assert "1 bad lines left out" in run(capsys, *command)
    (line,) = (tmp_path / "index" / "bad.log").read_text().splitlines()
    assert line.startswith(f"{tmp_path / 'corpus.jsonl'}:3: malformed JSON")
    (tmp_path / "more.jsonl").write_text(json.dumps({"id": "new", "text": "Neustadt is painted red ."}) + "\nno JSON\n")
    run(capsys, "index", tmp_path / "more.jsonl", "--out", tmp_path / "index", "--change", "add", "--skip-bad")
    first, second = (tmp_path / "index" / "bad.log").read_text().splitlines()
    assert first == line
    assert second.startswith(f"{tmp_path / 'more.jsonl'}:2: malformed JSON")
    assert (tmp_path / "mine.txt").read_text() == "mine"
    (tmp_path / "index" / "bad.log").unlink()
    (tmp_path / "index" / "bad.log").symlink_to(tmp_path / "mine.txt")
    run(capsys, *command, "--change", "swap", "--dtype", "float16")
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_a_build_that_is_resumed_keeps_its_list_of_bad_lines(tower, tmp_path, capsys, monkeypatch) -> None:
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(town) + "\n" for town in TOWNS) + "no JSON\n")
    out = tmp_path / "index"
    command = ("index", tmp_path / "corpus.jsonl", "--out", out, "--tower", tower, *SMALL, "--skip-bad")
    with monkeypatch.context() as patched:
        patched.setattr("rag_jax.commands.index.encode_in_processes", interrupted)
        with pytest.raises(SystemExit):
            run(capsys, *command)
    assert len((out / "bad.log").read_text().splitlines()) == 1
    run(capsys, *command)
    assert len((out / "bad.log").read_text().splitlines()) == 1
    assert manifest.read(out).passages == 2


def interrupted(*arguments: object) -> None:
    raise KeyboardInterrupt


def test_an_index_inside_its_corpus_is_no_part_of_it(tower, tmp_path, capsys) -> None:
    (tmp_path / "notes" / ".git").mkdir(parents=True)
    (tmp_path / "notes" / "a.md").write_text("Norburg is red.")
    command = ("index", tmp_path / "notes", "--out", tmp_path / "notes" / "index", "--tower", tower, *SMALL)
    run(capsys, *command)
    (tmp_path / "notes" / ".git" / "HEAD").write_text("hidden")
    assert "is built from this corpus with these options; nothing to do" in run(capsys, *command)


def test_a_faiss_index_that_is_none_is_refused_before_anything_is_encoded(tower, towns, tmp_path, capsys) -> None:
    command = ("index", towns.data.passages, "--out", tmp_path / "index", "--tower", tower, *SMALL, "--faiss", "Flatt")
    assert "FAISS makes no index 'Flatt'" in refused(capsys, *command)
    assert not (tmp_path / "index").exists()


def test_a_tower_that_reads_no_questions_is_refused_before_anything_is_encoded(tower, towns, tmp_path, capsys) -> None:
    of_passages, out = tmp_path / "passage", tmp_path / "index"
    shutil.copytree(tower, of_passages)
    described = json.loads((of_passages / "config.json").read_text())
    (of_passages / "config.json").write_text(json.dumps(described | {"side": "passage"}))  # half of a pair
    command = ("index", towns.data.passages, "--out", out, "--tower", of_passages, *SMALL, "--faiss", "Flat")
    told = refused(capsys, *command, "--questions", towns.data.evaluation)
    assert told.startswith(f"error: {of_passages}: reads passages only; name its question tower: ")
    assert not out.exists()


def test_tokens_are_made_for_a_generator(trained, towns, tower, tmp_path, capsys) -> None:
    folder = tmp_path / "index"
    vocabulary = ("--generator", trained[2], "--max-passage", "16")
    run(capsys, "index", towns.data.passages, "--out", folder, "--tower", tower, *SMALL, *vocabulary)
    (facts,) = manifest.read(folder).generators.values()
    assert facts["max_length"] == 16
    assert manifest.read(folder).version == 1
    found = run(capsys, "search", "Norburg", "--index", folder, "--workdir", trained[2])
    assert "Norburg /" in found
    assert manifest.read(folder).version == 1, "opened as it is"
    command = ("index", towns.data.passages, "--out", folder, "--tower", tower, *SMALL)
    assert "leave the corpus out, and they are added" in refused(
        capsys, *command, "--generator", trained[2], "--max-passage", "12"
    )
    run(capsys, "index", "--out", folder, "--generator", trained[2], "--max-passage", "12")
    assert [each["max_length"] for each in manifest.read(folder).generators.values()] == [16, 12]


def test_checksums_are_compared(index, capsys) -> None:
    found = run(capsys, "index", "--check", index)
    assert re.search(r"Every file has the checksum .* \([\d.]+ kB in [\d.]+ s, [\d,]+ MB/s\)\.\n", found)
    path = index / "vectors" / "000001" / "vectors.bin"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert "vectors.bin: does not have the checksum" in refused(capsys, "index", "--check", index)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b'{"id": "x", "text": ""}', '"text" is empty'),
        (b'{"id": "t0", "text": "twice"}', 'the id "t0" occurs twice'),
        (b'{"id": "x", "text": "\xff"}', "is not UTF-8"),
        (b'{"id": "x", "text": "a\x00"}', "NUL"),
        (b'{"id": "x"', "malformed JSON"),
    ],
)
def test_a_bad_line_is_named_and_nothing_is_built_or_it_is_left_out(line, told, tower, tmp_path, capsys) -> None:
    corpus, out = tmp_path / "corpus.jsonl.gz", tmp_path / "index"
    good = b"".join(json.dumps(town).encode() + b"\n" for town in TOWNS)
    corpus.write_bytes(gzip.compress(good + line + b"\n"))
    command = ("index", corpus, "--out", out, "--tower", tower, *SMALL)
    error = refused(capsys, *command)
    assert error.startswith(f"error: {corpus}:3: ") or f"{corpus}:3: " in error
    assert told in error
    assert not (out / manifest.FILE).exists()
    assert "1 bad lines left out" in run(capsys, *command, "--skip-bad")
    assert told in (out / "bad.log").read_text()
    assert manifest.read(out).passages == 2


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("index", "corpus.jsonl"), "name the folder of the store: --out DIR"),
        (("index", "--out", "x"), "name a CORPUS to build from"),
        (("index", "corpus.jsonl", "--out", "x"), "name the tower that reads the passages"),
        (("index", "--info", "nowhere"), "no knowledge store there"),
        (("index", "--info", "a", "--check", "b"), "--info and --check name an index each; give one of them"),
        (("index", "c.jsonl", "--out", "x", "--change", "add", "--width", "8"), "--width is of a build; --change add"),
        (("index", "c.jsonl", "--out", "x", "--change", "add", "--generator", "g"), "in a run without a CORPUS"),
        (("index", "c.jsonl", "--out", "x", "--faiss", "Flat", "--questions", "nowhere.jsonl"), "nowhere.jsonl"),
        (("search", "--index", "nowhere"), "nothing to search for"),
        (("search", "x", "--index", "nowhere"), "no knowledge store there"),
        (("plan", "--passages", "0"), "--passages is 0; give 1 or more"),
        (("plan", "--tokens", "0"), "--tokens is 0; give 1 or more"),
        (("plan", "--vocabulary", "0"), "--vocabulary is 0; give 1 or more"),
        (("index", "--sgement", "3"), "segment"),
    ],
)
def test_what_cannot_be_done_is_named(arguments, told, capsys, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert told in refused(capsys, *arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_corpus_that_is_not_there_is_named(tower, tmp_path, capsys) -> None:
    command = ("index", tmp_path / "none.tsv", "--out", tmp_path / "index", "--tower", tower, *SMALL)
    assert "none.tsv: no such file or folder" in refused(capsys, *command)


def test_a_plan_tells_bytes_devices_and_times(capsys) -> None:
    told = run(capsys, "plan")
    assert "21,015,324 passages" in told
    assert re.search(r"vectors +6\d\.\d GB +3\d\.\d GB +1\d\.\d GB", told)
    assert re.search(r"H200 141 GB +1: 1\d\.\d +1: \d\.\d +1: \d\.\d", told)


def test_tokens_of_a_large_vocabulary_are_planned_with_twice_the_bytes(capsys) -> None:
    def tokens(*options: object) -> list[str]:
        (line,) = re.findall(r"^tokens +(.*?) *$", run(capsys, "plan", "--tokens", 160, *options), re.MULTILINE)
        return re.split(" {2,}", line)

    rows = padded_rows(21_015_324)
    for vocabulary, num_bytes in ((None, 2), (2**16, 2), (2**16 + 1, 4), (151_936, 4)):
        given = () if vocabulary is None else ("--vocabulary", vocabulary)
        assert tokens(*given) == [format_bytes(rows * (num_bytes * 160 + 4))] * 3, "a length of four bytes besides"


@pytest.mark.slow
def test_two_processes_that_were_killed_go_on_to_the_bytes_of_one(towns, tower, tmp_path) -> None:
    command = ("index", towns.data.passages, "--tower", tower, *SMALL, "--segment", "20", "--out")
    out, typed = tmp_path / "index", [sys.executable, "-m", "rag_jax.cli", *map(str, command)]
    subprocess.run([*typed, tmp_path / "expected"], check=True, capture_output=True)  # compiled as the others are
    typed = [*typed, str(out), "--processes", "2"]
    first = subprocess.Popen(typed, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while not (out / "vectors").exists() and first.poll() is None:
        time.sleep(0.01)
    first.kill()
    first.wait()
    assert not (out / manifest.FILE).exists()
    subprocess.run(typed, check=True, capture_output=True)
    one, two = (
        {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.*") if path.is_file()}
        for folder in (tmp_path / "expected", out)
        if (folder / manifest.FILE).exists()
    )
    assert one == two


@pytest.mark.parametrize(
    ("option", "told"),
    [
        (["--norm", "nan"], "--norm is nan; give a finite number above 0"),
        (["--norm", "inf"], "--norm is inf; give a finite number above 0"),
        (["--max-length", "0"], "--max-length is 0; give 1 or more"),
        (["--max-passage", "-3"], "--max-passage is -3; give 1 or more"),
        (["--segment", "0"], "--segment is 0; give 1 or more"),
        (["--processes", "0"], "--processes is 0; give 1 or more"),
        (["--tokens", "0"], "--tokens is 0; give 1 or more"),
        (["--info", "nowhere", "--norm", "0"], "--norm is 0.0; give a finite number above 0"),
        (["--questions", "some.jsonl"], "--questions is for the recall of --faiss or --precisions"),
        (["--words", "0"], "passages of 0 words cannot be cut"),
        (["--questions", "", "--precisions", "int8"], "questions is empty; name a file or a folder"),
        (["--words", "50", "--tokens", "128"], "--words and --tokens are two lengths of a passage; give one of them"),
        (["--overlap", "-1"], "an overlap of -1 between passages of 100 words cannot be; give 0 to 99"),
    ],
)
def test_numbers_that_make_no_store_are_named(towns, tower, tmp_path, capsys, option: list[str], told: str) -> None:
    command = ["index", towns.data.passages, "--out", tmp_path / "store", "--tower", tower]
    assert told in refused(capsys, *command, *option)
    assert not (tmp_path / "store").exists()
