"""The tensors of a folder, whatever files they are in; files that cannot be read are refused in one line."""

import json
import os
import pickle
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from transformers import BertModel

import oracle
from oracle import torch
from rag_jax.errors import InputError
from rag_jax.hub import TowerCheckpoint, save
from rag_jax.hub.tensors import read_tensors, write_tensors
from rag_jax.models import bert
from rag_jax.models.bert import BertConfig

TOWER = BertConfig(vocab_size=40, width=16, layers=2, heads=2, ffn_width=24, max_positions=10)
ROOT = Path(__file__).parents[2]


def model(dtype: torch.dtype = torch.float32) -> BertModel:
    return oracle.tower(BertModel, TOWER)[0].to(dtype)


def single(folder: Path, dtype: torch.dtype = torch.float32) -> None:
    model(dtype).save_pretrained(folder)


def shards(folder: Path, dtype: torch.dtype = torch.float32) -> None:
    model(dtype).save_pretrained(folder, max_shard_size="2KB")


def old_bin(folder: Path, dtype: torch.dtype = torch.float32) -> None:
    single_bin(folder, dtype, zipped=False)


def single_bin(folder: Path, dtype: torch.dtype = torch.float32, zipped: bool = True) -> None:
    torch.save(model(dtype).state_dict(), folder / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)


def bin_shards(folder: Path, dtype: torch.dtype = torch.float32) -> None:
    """transformers writes these no more; this is how they looked."""
    state = model(dtype).state_dict()
    where = {name: f"pytorch_model-{n % 3 + 1:05}-of-00003.bin" for n, name in enumerate(state)}
    for file in sorted(set(where.values())):
        torch.save({name: tensor for name, tensor in state.items() if where[name] == file}, folder / file)
    index = {"metadata": {"total_size": 0}, "weight_map": where}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


LAYOUTS = [single, shards, single_bin, old_bin, bin_shards]


def refusal(folder: Path) -> str:
    with pytest.raises(InputError) as complaint:
        read_tensors(folder)
    message = str(complaint.value)
    assert "\n" not in message
    assert message.startswith(str(folder))
    return message


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("write", LAYOUTS)
def test_every_tensor_is_read_from_every_layout(tmp_path, write, dtype):
    write(tmp_path, dtype)
    found = read_tensors(tmp_path)
    theirs = model(dtype).state_dict()
    assert {name: each.shape for name, each in found.items()} == {n: tuple(each.shape) for n, each in theirs.items()}
    for name, each in found.items():
        np.testing.assert_array_equal(each.read().astype(np.float32), theirs[name].float().numpy())


def test_shards_are_shards(tmp_path):
    shards(tmp_path)
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 5
    assert not (tmp_path / "model.safetensors").exists()


@pytest.mark.parametrize("write", LAYOUTS)
def test_a_tensor_may_be_read_twice(tmp_path, write):
    write(tmp_path)
    for each in read_tensors(tmp_path).values():
        np.testing.assert_array_equal(each.read(), each.read())


@pytest.mark.parametrize("write", [single, shards])
def test_nothing_that_was_read_is_kept(tmp_path, write):
    write(tmp_path)
    for each in read_tensors(tmp_path).values():
        assert not np.shares_memory(each.read(), each.read())


class Program:
    """A pickle that runs a program, which leaves a mark."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_bin_that_holds_a_program_is_refused_and_does_not_run_it(tmp_path, zipped):
    mark = tmp_path / "mark"
    held = {"weight": torch.ones(3), "program": Program(mark)}
    torch.save(held, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    assert "holds more than tensors, and could run a program" in refusal(tmp_path)
    assert not mark.exists()
    pickle.loads(pickle.dumps(held["program"]))
    assert mark.exists()


@pytest.mark.parametrize("held", [[torch.ones(3)], {"step": 3}, torch.ones(3)])
def test_a_bin_that_is_no_table_of_tensors_is_refused(tmp_path, held):
    torch.save(held, tmp_path / "pytorch_model.bin")
    assert "pytorch_model.bin: is no table of tensors; give the weights of a model" in refusal(tmp_path)


@pytest.mark.parametrize("write", [single_bin, bin_shards])
def test_a_bin_without_torch_names_torch(tmp_path, monkeypatch, write):
    write(tmp_path)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert "only torch can read a .bin; install torch, or save the checkpoint as safetensors" in refusal(tmp_path)


@pytest.mark.parametrize("part", [0, 1, 20, 0.5, -1])
@pytest.mark.parametrize("write", LAYOUTS)
def test_truncated_files_are_refused(tmp_path, write, part):
    write(tmp_path)
    path = next(path for path in sorted(tmp_path.iterdir()) if path.suffix in (".safetensors", ".bin"))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * part) if isinstance(part, float) else part])
    message = refusal(tmp_path)
    assert message.startswith(str(path))
    assert "copy" in message


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("text", ["<!DOCTYPE html>", "Not found", "version https://git-lfs.github.com/spec/v1\nsize 1"])
def test_what_was_downloaded_in_place_of_weights_is_refused(tmp_path, file, text):
    (tmp_path / file).write_text(text)
    assert "again" in refusal(tmp_path)


@pytest.mark.parametrize("write", [shards, bin_shards])
def test_a_missing_shard_is_named(tmp_path, write):
    write(tmp_path)
    path = sorted(path for path in tmp_path.iterdir() if "-of-" in path.name)[1]
    path.unlink()
    assert refusal(tmp_path) == f"{path}: missing, the index names it; copy or download it again"


@pytest.mark.parametrize("file", ["model.safetensors.index.json", "pytorch_model.bin.index.json"])
@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"weight_map": [1]}', '{"weight_map": {"a": 1}}', "\xff"])
def test_an_index_that_is_none_is_refused(tmp_path, file, text):
    (tmp_path / file).write_bytes(text.encode("latin-1"))
    assert refusal(tmp_path).startswith(f"{tmp_path / file}:")


@pytest.mark.parametrize("file", ["tf_model.h5", "flax_model.msgpack"])
def test_weights_of_another_framework_are_named(tmp_path, file):
    (tmp_path / file).touch()
    message = f"{tmp_path}: {file} is of another framework; give a folder that holds model.safetensors"
    assert refusal(tmp_path).startswith(message)


@pytest.mark.parametrize("odd", ["/etc/passwd", "../model.safetensors", "shards/../../x", "", "x\0"])
def test_an_index_names_files_of_its_folder_only(tmp_path, odd):
    shards(tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    found = json.loads(index.read_text())
    index.write_text(json.dumps(found | {"weight_map": found["weight_map"] | {"more": odd}}))
    with pytest.raises(InputError, match=r"index\.json: names .*, which is no file below") as caught:
        read_tensors(tmp_path)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("shard_bytes", [1, 2000, 10**6])
def test_written_shards_are_read_by_transformers_and_here(tmp_path, shard_bytes):
    config, arrays = model().config, oracle.state(model())
    config.save_pretrained(tmp_path)
    write_tensors(tmp_path, arrays, shard_bytes)
    files = sorted(tmp_path.glob("*.safetensors"))
    assert len(files) == (len(arrays) if shard_bytes == 1 else 1 if shard_bytes == 10**6 else len(files))
    assert all(file.stat().st_size < shard_bytes + 3000 for file in files)
    found = read_tensors(tmp_path)
    assert found.keys() == arrays.keys()
    loaded, told = BertModel.from_pretrained(tmp_path, add_pooling_layer=False, output_loading_info=True)
    assert not any(told.values())
    for name, value in oracle.state(loaded).items():
        np.testing.assert_array_equal(value, arrays[name])
        np.testing.assert_array_equal(found[name].read(), arrays[name])


def test_what_is_transposed_or_narrow_is_written_as_it_is(tmp_path):
    arrays = {"t": np.arange(6, dtype=np.float32).reshape(2, 3).T, "h": np.ones((2, 2), jax.numpy.bfloat16)}
    write_tensors(tmp_path, arrays)
    for name, each in read_tensors(tmp_path).items():
        assert each.read().dtype == arrays[name].dtype
        np.testing.assert_array_equal(each.read(), arrays[name])


MEASURE = """
import sys
from pathlib import Path
import jax, jax.numpy as jnp
from rag_jax.hub import load

def memory(what):
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(what)]
    return int(line.split()[1]) * 1024

jax.jit(lambda x: x + 1)(jnp.ones(3)).block_until_ready()
Path("/proc/self/clear_refs").write_text("5")
baseline = memory("VmRSS")
loaded = jax.block_until_ready(load(sys.argv[1]).params)
print(memory("VmHWM") - baseline, sum(leaf.nbytes for leaf in jax.tree.leaves(loaded)))
"""


@pytest.mark.extended
@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="this system does not tell the peak memory")
def test_loading_takes_little_more_memory_than_the_parameters(tmp_path):
    sizes = BertConfig(vocab_size=20000, width=512, layers=12, heads=8, ffn_width=2048, max_positions=512)
    shapes = jax.eval_shape(partial(bert.init, sizes), jax.random.key(0))
    params = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.5, leaf.dtype), shapes)
    save(tmp_path / "large", TowerCheckpoint(sizes, params))
    run = [sys.executable, "-c", MEASURE, str(tmp_path / "large")]
    told = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
    peak, held = map(int, told.stdout.split())
    assert held > 180 << 20
    assert peak < 1.3 * held
