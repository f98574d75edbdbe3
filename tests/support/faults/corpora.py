"""Bad corpora: lines, tables, documents and archives that `rag-jax index` must refuse, or read as they are meant."""

import gzip
import io
import json
import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

from faults.case import Case, Ended
from faults.ground import BUILD

GOOD = {"id": "a", "title": "t", "text": "a town"}
MORE = {"id": "b", "title": "t", "text": "another town"}
TSV = "id\ttext\ttitle\n"


def line(**changes: object) -> bytes:
    """A row with other values; None leaves a field out."""
    row = {key: value for key, value in {**GOOD, **changes}.items() if value is not ...}
    return json.dumps(row).encode() + b"\n"


FINE = line() + line(**MORE)
JSON_LINES = {
    "empty": b"",
    "blank": b"\n\n \n",
    "only a byte-order mark": b"\xef\xbb\xbf",
    "only NUL bytes": b"\0" * 100,
    "not UTF-8": FINE + '{"id": "c", "text": "K\xf6ln"}\n'.encode("latin-1"),
    "UTF-16": FINE.decode().encode("utf-16"),
    "UTF-32": FINE.decode().encode("utf-32"),
    "a NUL byte": FINE + b'{"id": "c", "text": "a\0b"}\n',
    "a NUL escape": FINE + rb'{"id": "c", "text": "a\u0000b"}' + b"\n",
    "half a surrogate pair in text": FINE + rb'{"id": "c", "text": "\ud800"}' + b"\n",
    "half a surrogate pair in id": FINE + rb'{"id": "\udfff", "text": "x"}' + b"\n",
    "half a surrogate pair in title": FINE + rb'{"id": "c", "title": "\udbff", "text": "x"}' + b"\n",
    "truncated": FINE[:-9],
    "truncated in a character": FINE + '{"id": "c", "text": "K\u00f6'.encode()[:-1],
    "an array": FINE + b"[1, 2]\n",
    "a number": FINE + b"17\n",
    "a string": FINE + b'"text"\n',
    "null": FINE + b"null\n",
    "NaN": FINE + b"NaN\n",
    "an id of NaN": FINE + b'{"id": NaN, "text": "x"}\n',
    "an id of Infinity": FINE + b'{"id": -Infinity, "text": "x"}\n',
    "an id of 5,000 digits": FINE + b'{"id": ' + b"9" * 5_000 + b', "text": "x"}\n',
    "a million brackets": FINE + b"[" * 1_000_000 + b"\n",
    "brackets in a field": FINE + b'{"id": "c", "text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n",
    "a trailing comma": FINE + b'{"id": "c", "text": "x",}\n',
    "single quotes": FINE + b"{'id': 'c', 'text': 'x'}\n",
    "two objects on a line": FINE.replace(b"\n", b" "),
    "a comment": b"// passages\n" + FINE,
    "carriage returns only": FINE.replace(b"\n", b"\r"),
    "a line of 40 MB": FINE + b'{"id": "c", "text": "' + b"x" * (40 << 20) + b'"}\n',
    "an id twice": FINE + line(),
    "an id twice, as a number": FINE + line(id=1) + line(id="1"),
    "an id in chunks twice": line(text="x " * 300) + line(id="a#2"),
    "no id, one of the row numbers taken": FINE + line(id=...) + line(id=...) + line(id="3"),
    "text missing": FINE + line(id="c", text=...),
    "XML": b'<?xml version="1.0"?><passages/>\n',
    "HTML": b"<!DOCTYPE html><html></html>\n",
    "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
    "a zip": b"PK\x03\x04" + bytes(range(256)),
    "gzip without the suffix": gzip.compress(FINE),
    "control characters in the id": FINE + b'{"id": "\\u001b[2J", "text": ""}\n',
    **{f"text {odd!r}": FINE + line(id="c", text=odd) for odd in ("", " \n", 17, 1.5, True, None, [], ["x"], {})},
    **{f"title {odd!r}": FINE + line(id="c", title=odd) for odd in (17, True, [], {})},
    **{f"id {odd!r}": FINE + line(id=odd) for odd in ("", " ", 1.5, True, [], {"x": 1})},
    "KILT with text of numbers": b'{"wikipedia_id": "1", "wikipedia_title": "A", "text": [1, 2]}\n',
    "KILT with a string": b'{"wikipedia_id": "1", "wikipedia_title": "A", "text": "x"}\n',
    "KILT without paragraphs": b'{"wikipedia_id": "1", "wikipedia_title": "A", "text": []}\n',
    "KILT with a title of a number": b'{"wikipedia_id": "1", "wikipedia_title": 7, "text": ["x"]}\n',
    "KILT with an id of an object": b'{"wikipedia_id": {}, "wikipedia_title": "A", "text": ["x"]}\n',
}
TABS = {
    "empty": b"",
    "a header only": TSV.encode(),
    "no header": b"1\tx\tt\n",
    "another header": b"id\tbody\ttitle\n1\tx\tt\n",
    "a header of two columns": b"id\ttext\n1\tx\n",
    "a column twice": b"id\ttext\ttext\n1\tx\ty\n",
    "a column too few": f"{TSV}1\tx\n".encode(),
    "a column too many": f"{TSV}1\tx\tt\tu\n".encode(),
    "an unclosed quote": f'{TSV}1\t"x\tt\n2\ty\tt\n'.encode(),
    "a quote behind a quoted field": f'{TSV}1\t"x"y\tt\n'.encode(),
    "an unclosed quote of 40 MB": f'{TSV}1\t"x\tt\n'.encode() + b"2\ty\tt\n" * 6_000_000,
    "an id twice": f"{TSV}1\tx\tt\n1\ty\tt\n".encode(),
    "a gap in the ids": f"{TSV}1\tx\tt\n3\ty\tt\n".encode(),
    "no id": f"{TSV}\tx\tt\n".encode(),
    "no text": f"{TSV}1\t\tt\n".encode(),
    "a NUL byte": f"{TSV}1\tx\0\tt\n".encode(),
    "not UTF-8": f"{TSV}1\tK\xf6ln\tt\n".encode("latin-1"),
    "UTF-16": f"{TSV}1\tx\tt\n".encode("utf-16"),
    "commas": b"id,text,title\n1,x,t\n",
    "carriage returns only": f"{TSV}1\tx\tt\n".replace("\n", "\r").encode(),
    "the header twice": f"{TSV}{TSV}".encode(),
    "truncated": f"{TSV}1\tx\tt\n2\ty".encode(),
}
GZIP = {
    "no gzip": FINE,
    "empty": b"",
    "its header only": gzip.compress(FINE)[:10],
    "truncated": gzip.compress(FINE * 99)[:-9],
    "a byte changed": gzip.compress(FINE)[:20] + b"\xff" + gzip.compress(FINE)[21:],
    "another checksum": gzip.compress(FINE)[:-8] + struct.pack("<II", 1, len(FINE)),
    "another length": gzip.compress(FINE)[:-4] + struct.pack("<I", 7),
    "gzip in gzip": gzip.compress(gzip.compress(FINE)),
    "something behind it": gzip.compress(FINE) + b"more",
    "a truncated second member": gzip.compress(FINE) + gzip.compress(line(id="c"))[:-5],
}
DOCUMENTS = {
    "empty.txt": b"",
    "blank.txt": b" \n\n",
    "latin.txt": "K\xf6ln".encode("latin-1"),
    "nul.txt": b"a\0b",
    "sixteen.txt": "text".encode("utf-16"),
    "empty.md": b"",
    "latin.md": "# K\xf6ln\n".encode("latin-1"),
    "paper.pdf": b"%PDF-1.7\n%\xff\xff",
    "paper.docx": b"PK\x03\x04",
    "none": b"text",
    ".jsonl": b"",
    "list.json": b"[1, 2, 3]",
    "table.csv": b"id,text\n1,x\n",
    "archive.zip": b"PK\x05\x06" + bytes(18),
    "archive.tar.gz": gzip.compress(bytes(1024)),
    "lines.jsonl.zst": b"\x28\xb5\x2f\xfd",
    "lines.jsonl.bz2": b"BZh9",
}
FINE_ONES: dict[str, tuple[str, bytes, int]] = {  # name, contents, passages
    "a byte-order mark": ("c.jsonl", b"\xef\xbb\xbf" + FINE, 2),
    "a heading alone": ("c.md", b"# Only a heading\n", 1),
    "blank lines": ("c.jsonl", b"\n" + FINE.replace(b"\n", b"\n\n"), 2),
    "Windows' line ends": ("c.jsonl", FINE.replace(b"\n", b"\r\n"), 2),
    "no last line end": ("c.jsonl", FINE[:-1], 2),
    "fields that nobody asks for": ("c.jsonl", FINE + b'{"id": "c", "text": "x", "more": {"a": [1e999]}}\n', 3),
    "quoted tabs": ("c.tsv", f'{TSV}1\t"a\tb ""c"""\tt\n'.encode(), 1),
    "two members of gzip": ("c.jsonl.gz", gzip.compress(line()) + gzip.compress(line(**MORE)), 2),
    "an id with a slash and a quote": ("c.jsonl", line(id='../"\\'), 1),
}


def cases() -> Iterator[Case]:
    """Every bad corpus, and some that look bad and are not."""
    yield from (_index("corpora: JSON lines", name, "c.jsonl", data) for name, data in JSON_LINES.items())
    yield from (_index("corpora: TSV", name, "c.tsv", data) for name, data in TABS.items())
    yield from (_index("corpora: gzip", name, "c.jsonl.gz", data) for name, data in GZIP.items())
    yield from (_index("corpora: documents", name, name, data) for name, data in DOCUMENTS.items())
    for name, (file, data, count) in FINE_ONES.items():
        case = _index("corpora: fine", name, file, data)
        yield Case(f"corpora: fine: {name}", case.argv, case.spoil, gives=holds(count))
    for name, (file, spoil) in _tables().items():
        yield Case(f"corpora: tables: {name}", ("index", file, "--out", "new", *BUILD), spoil, says=file)


def holds(count: int) -> Callable[[Ended], bool]:
    """Whether the store that was built has so many passages."""
    return lambda ended: re.search(rf"^passages +{count:,} *$", ended.out, re.MULTILINE) is not None


def _index(family: str, name: str, file: str, data: bytes) -> Case:
    argv = "index", file, "--out", "new", *BUILD
    return Case(f"{family}: {name}", argv, lambda here: (here / file).write_bytes(data), says=file)


def _tables() -> dict[str, tuple[str, Callable[[Path], object]]]:
    """Parquet files and folders of datasets, damaged or with other columns."""

    def parquet(act: Callable[[bytes], bytes] = bytes, **columns: object) -> tuple[str, Callable[[Path], object]]:
        def write(here: Path) -> None:
            import pyarrow
            from pyarrow import parquet as files

            held = io.BytesIO()
            arrays = {key: value() if callable(value) else pyarrow.array(value) for key, value in columns.items()}
            files.write_table(pyarrow.table(arrays), held)
            (here / "c.parquet").write_bytes(act(held.getvalue()))

        return "c.parquet", write

    def dataset(act: Callable[[Path], object]) -> tuple[str, Callable[[Path], object]]:
        def write(here: Path) -> None:
            import pyarrow

            folder = here / "c"
            folder.mkdir()
            table = pyarrow.table({"id": ["a"], "text": ["x"]})
            with (
                pyarrow.OSFile(str(folder / "data.arrow"), "wb") as file,
                pyarrow.ipc.new_stream(file, table.schema) as to,
            ):
                to.write_table(table)
            (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data.arrow"}]}))
            act(folder)

        return "c", write

    def latin() -> object:
        import pyarrow

        return pyarrow.Array.from_buffers(
            pyarrow.string(), 1, [None, pyarrow.py_buffer(struct.pack("<ii", 0, 1)), pyarrow.py_buffer(b"\xf6")]
        )

    def state(text: str) -> tuple[str, Callable[[Path], object]]:
        return dataset(lambda folder: (folder / "state.json").write_text(text))

    good = {"id": ["a"], "text": ["x"]}
    return {
        "Parquet, empty": parquet(lambda data: b"", **good),
        "Parquet, other bytes": parquet(lambda data: b"PAR1" + bytes(99) + b"PAR1", **good),
        "Parquet, truncated": parquet(lambda data: data[:-20], **good),
        "Parquet, the beginning missing": parquet(lambda data: data[20:], **good),
        "Parquet, a page overwritten": parquet(lambda data: data[:8] + b"\xff" * 24 + data[32:], **good),
        "Parquet, a huge footer": parquet(lambda data: data[:-8] + b"\xff\xff\xff\x7fPAR1", **good),
        "Parquet, no text": parquet(id=["a"], body=["x"]),
        "Parquet, no rows": parquet(lambda data: data, id=_of("string"), text=_of("string")),
        "Parquet, text of numbers": parquet(text=[1, 2]),
        "Parquet, text of lists": parquet(text=[["a"], ["b"]]),
        "Parquet, text of null": parquet(text=["x", None]),
        "Parquet, ids of floats": parquet(id=[1.5], text=["x"]),
        "Parquet, an id twice": parquet(id=["a", "a"], text=["x", "y"]),
        "Parquet, titles of booleans": parquet(title=[True], text=["x"]),
        "Parquet, not UTF-8": parquet(text=latin),
        "a dataset, no state": dataset(lambda folder: (folder / "state.json").unlink()),
        "a dataset, its file missing": dataset(lambda folder: (folder / "data.arrow").unlink()),
        "a dataset, its file empty": dataset(lambda folder: (folder / "data.arrow").write_bytes(b"")),
        "a dataset, its file cut": dataset(
            lambda folder: (folder / "data.arrow").write_bytes((folder / "data.arrow").read_bytes()[:-9])
        ),
        "a dataset, other bytes": dataset(
            lambda folder: (folder / "data.arrow").write_bytes(b"\xff" * 99 + b"\xff\xff\xff\xff\0\0\0\0")
        ),
        "a dataset, state of a list": state("[]"),
        "a dataset, state without files": state("{}"),
        "a dataset, a file name of a number": state('{"_data_files": [{"filename": 7}]}'),
        "a dataset, no files": state('{"_data_files": []}'),
        "a dataset, an indices mapping": state('{"_data_files": [], "_indices_data_files": [{"filename": "x"}]}'),
        "a dataset, deep JSON": state("[" * 100_000),
        "several datasets": dataset(
            lambda folder: (folder / "state.json").rename(folder / "dataset_dict.json")
        ),
        "a folder, empty": ("c", lambda here: (here / "c").mkdir()),
        "a folder of other files": ("c", lambda here: ((here / "c").mkdir(), (here / "c" / "x.bin").write_bytes(b"x"))),
        "a folder, a document not UTF-8": (
            "c", lambda here: ((here / "c").mkdir(), (here / "c" / "x.txt").write_bytes(b"\xff"))
        ),
    }  # fmt: skip


def _of(kind: str) -> Callable[[], object]:
    def make() -> object:
        import pyarrow

        return pyarrow.array([], getattr(pyarrow, kind)())

    return make
