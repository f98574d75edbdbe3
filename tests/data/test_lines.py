"""Lines of text files: every fault is named by its line, and no line is held that is too long."""

import gzip
import os
import threading
import tracemalloc

import pytest

from rag_jax.data import lines as module
from rag_jax.data.lines import MAX_LINE_BYTES, READ_BYTES, check_plain, read_lines
from rag_jax.errors import InputError

MEGABYTE = b"x" * 2**20


def skipping(path) -> tuple[list[str], list[str]]:
    errors = []
    return list(read_lines(path, errors.append)), [str(error) for error in errors]


def test_a_byte_order_mark_is_dropped_at_the_beginning_only(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_bytes("\ufeffone\n\ufefftwo\n".encode())
    assert list(read_lines(path)) == ["one\n", "\ufefftwo\n"]


@pytest.mark.parametrize("size", [1, READ_BYTES - 1, READ_BYTES, READ_BYTES + 1, 3 * READ_BYTES])
@pytest.mark.parametrize("name", ["lines.txt", "lines.txt.gz"])
def test_a_line_is_whole_however_many_pieces_it_is_read_in(tmp_path, name, size):
    lines = ["y" * (size - 1) + "\n", "\n", "z" * size]
    content = "".join(lines).encode()
    (tmp_path / name).write_bytes(gzip.compress(content, 1) if name.endswith("gz") else content)
    assert list(read_lines(tmp_path / name)) == lines


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (b"caf\xe9\n", "byte 4 is not UTF-8; save the file as UTF-8 text"),
        (b"\xed\xb0\x80\n", "byte 1 is not UTF-8; save the file as UTF-8 text"),  # half a surrogate, as bytes
        (b"a\0b\n", "holds a NUL byte; remove it, or save the file as UTF-8 text"),
        (b"four\n", "longer than 0 MiB; cut the text into several, or end the lines with line feeds"),
    ],
)
def test_a_bad_line_ends_the_reading_or_becomes_an_empty_string(tmp_path, monkeypatch, line, what):
    if line == b"four\n":
        monkeypatch.setattr(module, "MAX_LINE_BYTES", 4)
        monkeypatch.setattr(module, "READ_BYTES", 2)
    path = tmp_path / "lines.txt"
    path.write_bytes(b"one\n" + line + b"two\n" + line)
    reading = read_lines(path)
    assert next(reading) == "one\n"
    with pytest.raises(InputError) as caught:
        next(reading)
    assert str(caught.value) == f"{path}:2: {what}"
    assert skipping(path) == (["one\n", "", "two\n", ""], [f"{path}:2: {what}", f"{path}:4: {what}"])


@pytest.mark.parametrize("name", ["lines.txt", "lines.txt.gz"])
def test_a_line_of_a_hundred_megabytes_is_passed_over_without_being_held(tmp_path, name):
    path = tmp_path / name
    with gzip.open(path, "wb", 1) if name.endswith("gz") else path.open("wb") as file:
        file.write(b"one\n")
        for _ in range(100):
            file.write(MEGABYTE)
        file.write(b"\ntwo\n")
    tracemalloc.start()
    try:
        read = skipping(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    what = "longer than 32 MiB; cut the text into several, or end the lines with line feeds"
    assert read == (["one\n", "", "two\n"], [f"{path}:2: {what}"])
    assert peak < 40 * 10**6


def test_the_longest_line_is_read(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_bytes(b"x" * (MAX_LINE_BYTES - 1) + b"\n" + b"x" * MAX_LINE_BYTES + b"\nend")
    lines, errors = skipping(path)
    assert [len(line) for line in lines] == [MAX_LINE_BYTES, 0, 3]
    assert len(errors) == 1


def test_a_file_that_is_not_there_or_damaged_is_refused_whatever_bad_says(tmp_path):
    damaged = tmp_path / "damaged.txt.gz"
    damaged.write_bytes(gzip.compress(b"one\ntwo\n" * 1000)[:-20])
    for path, what in [
        (tmp_path / "none", "no such file; check the path"),
        (tmp_path, "is a folder, not a file; name a file in it"),
        (damaged, "damaged gzip"),
    ]:
        with pytest.raises(InputError, match=what):
            skipping(path)


def test_what_the_handler_raises_is_not_taken_for_a_fault_of_the_file(tmp_path):
    def full(error):
        raise OSError(28, "No space left on device")

    (tmp_path / "lines.txt").write_bytes(b"\xff\n")
    with pytest.raises(OSError, match="No space left"):
        list(read_lines(tmp_path / "lines.txt", full))


@pytest.mark.parametrize("device", ["/dev/null", "/dev/zero"])
def test_a_device_is_refused_which_may_have_no_end(tmp_path, device):
    path = tmp_path / "lines.jsonl"
    path.symlink_to(device)
    with pytest.raises(InputError, match=r"lines.jsonl: is a device"):
        next(read_lines(path))


def test_a_pipe_is_read_once(tmp_path):
    path = tmp_path / "lines.jsonl"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(b"a\nb\n",))
    writer.start()
    assert list(read_lines(path)) == ["a\n", "b\n"]
    writer.join()
    with pytest.raises(InputError, match="or a pipe; write what it holds to a file"):
        check_plain(path)
