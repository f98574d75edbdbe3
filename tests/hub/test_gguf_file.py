"""The file format: every quantisation is read as the numbers it stands for, and damaged files are refused."""

import struct
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFWriter

from gguf_files import write
from rag_jax.errors import InputError
from rag_jax.hub import gguf_file

ROWS, WIDTH = 6, 512  # two blocks of the largest kind
METADATA = {
    "general.architecture": "llama",
    "count": 3,
    "small": 1e-6,
    "on": True,
    "words": ["a", "東京"],
    "ids": [1, -2],
}
HALF = 2**-11  # the rounding of half precision
# The largest error, as a fraction of the largest number of a block of 32: half a step, and the rounding of the scale.
ERRORS = {
    **{"F32": 0, "F16": HALF, "BF16": 2**-8},
    **{"Q4_0": 1 / 8 + HALF, "Q4_1": 1 / 15 + 2 * HALF, "Q5_0": 1 / 16 + HALF, "Q5_1": 1 / 31 + 2 * HALF},
    "Q8_0": 1 / 254 + HALF,
}
SCALES = {"Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}
"""Where a block has its scales in half precision."""


@pytest.fixture
def values() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((ROWS, WIDTH)).astype(np.float32)


@pytest.fixture
def file(tmp_path: Path, values: np.ndarray) -> Path:
    return write(tmp_path / "m.gguf", METADATA, {"a.weight": values, "a.bias": values[0]}, "Q8_0")


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as complaint:
        gguf_file.read(path)
    message = str(complaint.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    return message


def test_metadata_of_every_kind_is_read(file: Path) -> None:
    assert gguf_file.read(file).metadata == METADATA


@pytest.mark.parametrize("quantisation", ERRORS)
def test_numbers_are_within_the_error_of_their_format(tmp_path: Path, values: np.ndarray, quantisation: str) -> None:
    path = write(tmp_path / "m.gguf", METADATA, {"before": values[:1], "a": values, "b": values[0]}, quantisation)
    tensors = gguf_file.read(path).tensors
    assert [each.shape for each in tensors.values()] == [(1, WIDTH), (ROWS, WIDTH), (WIDTH,)]
    found = tensors["a"].read()
    assert (found.dtype, found.shape) == (np.float32, values.shape)
    blocks, errors = values.reshape(-1, 32), np.abs(found - values).reshape(-1, 32)
    assert np.all(errors <= ERRORS[quantisation] * np.abs(blocks).max(axis=1, keepdims=True))
    np.testing.assert_array_equal(tensors["b"].read(), values[0])


@pytest.mark.parametrize("quantisation", [*SCALES, "Q4_0", "Q4_1", "Q8_0"])
def test_blocks_mean_what_transformers_reads_in_them(tmp_path: Path, quantisation: str) -> None:
    torch = pytest.importorskip("torch", reason="the oracle's")
    theirs = pytest.importorskip("transformers.integrations.gguf.dequant", reason="of transformers 5.24")
    kind = GGMLQuantizationType[quantisation]
    numbers, size = GGML_QUANT_SIZES[kind]
    rng = np.random.default_rng(1)
    blocks = rng.integers(0, 256, (ROWS, WIDTH // numbers, size), np.uint8)
    for place in SCALES.get(quantisation, (0, 2) if quantisation == "Q4_1" else (0,)):
        scales = rng.standard_normal(blocks.shape[:2]).astype(np.float16)
        blocks[:, :, place : place + 2] = scales[..., None].view(np.uint8)
    writer = GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_tensor("a", blocks.reshape(ROWS, -1), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    expected = theirs.dequantize(torch.from_numpy(blocks.reshape(-1)), kind.value).numpy().reshape(ROWS, WIDTH)
    np.testing.assert_array_equal(gguf_file.read(tmp_path / "m.gguf").tensors["a"].read(), expected)


def test_rows_are_read_in_chunks(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = gguf_file.read(file).tensors["a.weight"].read()
    monkeypatch.setattr(gguf_file, "CHUNK", 4 * 34 * WIDTH // 32)  # four rows, then two
    np.testing.assert_array_equal(gguf_file.read(file).tensors["a.weight"].read(), whole)


def test_a_file_that_is_cut_short_anywhere_is_refused(file: Path) -> None:
    whole = file.read_bytes()
    end = max(each.data_offset + each.n_bytes for each in gguf.GGUFReader(file).tensors)
    for length in [*range(4, 700, 3), end - 1]:
        file.write_bytes(whole[:length])
        assert "the file is cut short; copy or download it again" in refusal(file)
    file.write_bytes(whole[:end])
    assert gguf_file.read(file).tensors


def test_damaged_headers_are_refused_or_read_as_others(file: Path) -> None:
    whole, refused = file.read_bytes(), 0
    for place in range(24, 500):
        file.write_bytes(whole[:place] + b"\xff" + whole[place + 1 :])
        try:
            gguf_file.read(file)
        except InputError:  # anything else fails the test
            refused += 1
    assert 100 < refused < 476


@pytest.mark.parametrize("content", [b"", b"GG", b"PK\x03\x04 no model of any kind"])
def test_another_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.gguf").write_bytes(content)
    assert "not a GGUF file; give one that llama.cpp can load" in refusal(tmp_path / "m.gguf")


def test_a_file_that_is_missing_is_refused(tmp_path: Path) -> None:
    assert "cannot be read (No such file or directory)" in refusal(tmp_path / "m.gguf")


@pytest.mark.parametrize(
    ("version", "what"),
    [
        ("<I", "is GGUF of version 1, supported are little-endian versions 2 and 3"),
        (">I", "is big-endian, supported are"),
    ],
)
def test_other_versions_are_refused(file: Path, version: str, what: str) -> None:
    whole = file.read_bytes()
    file.write_bytes(whole[:4] + struct.pack(version, 1) + whole[8:])
    assert what in refusal(file)


def test_other_quantisations_are_refused_by_name(tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "m.gguf", "llama")
    blocks = np.zeros((2, GGML_QUANT_SIZES[GGMLQuantizationType.IQ4_XS][1]), np.uint8)
    writer.add_tensor("blk.0.ffn_up.weight", blocks, raw_dtype=GGMLQuantizationType.IQ4_XS)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert "blk.0.ffn_up.weight is IQ4_XS, supported are F32, F16, BF16, Q4_0" in refusal(tmp_path / "m.gguf")


def test_one_of_several_parts_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", {**METADATA, "split.count": 2}, {})
    assert "is one of 2 parts, and only whole files are supported; merge them" in refusal(path)


def test_missing_and_odd_values_are_refused(file: Path) -> None:
    metadata = gguf_file.read(file).metadata
    with pytest.raises(InputError, match=r"m\.gguf: has no 'llama.block_count'; convert the model again"):
        metadata["llama.block_count"]
    with pytest.raises(InputError, match=r"m\.gguf: ids is \[1, -2\]; only a single number is supported"):
        metadata.number("ids")
    assert metadata.number("nothing", 7) == 7
