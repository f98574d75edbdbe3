"""The mesh of a run: what is refused, and where arrays come to lie on two devices."""

import re
from dataclasses import replace

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from rag_jax.config.config import Compute, Config, Data, Mesh, Retriever
from rag_jax.errors import InputError
from rag_jax.parallel import devices


def config(mesh: Mesh, batch_size: int = 4, accumulate: int = 1) -> Config:
    return Config(Data(), Retriever("tower"), mesh=mesh, batch_size=batch_size, compute=Compute(accumulate=accumulate))


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (config(Mesh(data=3)), r"^mesh: data 3 x fsdp 1 x tensor 1 = 3 devices, there are 2; give a product that divi"),
        (config(Mesh(data=2, fsdp=2)), r"= 4 devices, there are 2; give a product that divides 2$"),
        (config(Mesh(fsdp=0)), r"^mesh: data 1 x fsdp 0 x tensor 1; give 1 or more of each$"),
        (config(Mesh(data=2), 3), r"^batch_size 3 does not divide into 1 parts .* on 2 devices .*; give a multiple of"),
        (config(Mesh(data=2), 6, 2), r"^batch_size 6 does not divide into 2 parts .* on 2 devices .* multiple of 4$"),
        (config(Mesh(), 3, 2), r"^batch_size 3 does not divide into 2 parts"),
        (config(Mesh(), 4, 0), r"^compute\.accumulate is 0; give 1 or more$"),
    ],
)
def test_a_mesh_that_does_not_fit_is_one_line(wrong: Config, told: str) -> None:
    with pytest.raises(InputError, match=told) as caught:
        devices.check(wrong)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("mesh", [Mesh(), Mesh(data=2), Mesh(fsdp=2), Mesh(tensor=2)])
def test_what_fits_is_accepted(mesh: Mesh) -> None:
    devices.check(config(mesh))


def test_one_device_has_no_mesh_and_two_have_three_axes() -> None:
    assert devices.mesh(config(Mesh())) is None
    mesh = devices.mesh(config(Mesh(fsdp=2)))
    assert mesh is not None
    assert dict(mesh.shape) == {"data": 1, "fsdp": 2, "tensor": 1}


@pytest.mark.parametrize("mesh", [Mesh(), Mesh(data=2), Mesh(fsdp=2), Mesh(tensor=4), Mesh(data=2, fsdp=2)])
def test_devices_that_a_run_leaves_idle_are_told_and_how_it_uses_all(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jax, "devices", lambda: [None] * 8)
    told = devices.unused(config(mesh))
    assert told is not None
    found = re.fullmatch(rf"the mesh uses {mesh.size} of 8 devices; --mesh\.data (\d+) uses all", told)
    assert found is not None
    whole = replace(mesh, data=int(found[1]))
    assert whole.size == 8
    assert devices.unused(config(whole)) is None


def test_a_mesh_that_cannot_be_made_here_gives_way_to_one_device() -> None:
    assert devices.fit_to_devices(config(Mesh(data=8))).mesh == Mesh()
    assert devices.fit_to_devices(config(Mesh(data=2))).mesh == Mesh(data=2)


def test_a_batch_is_spread_by_questions() -> None:
    rows = np.arange(12).reshape(4, 3)
    mesh = devices.mesh(config(Mesh(data=2)))
    spread = devices.shard_batch(mesh, 4, lambda own: {"rows": rows[own]})["rows"]
    np.testing.assert_array_equal(spread, rows)
    assert spread.sharding.spec == devices.BATCH
    assert [shard.data.shape for shard in spread.addressable_shards] == [(2, 3), (2, 3)]
    assert devices.shard_batch(None, 4, lambda own: rows[own]) is not None


def test_a_step_is_compiled_once_for_each_length_of_its_inputs(caplog: pytest.LogCaptureFixture) -> None:
    def add(state, rows):
        return state + rows.sum(), rows.shape[0]

    step = devices.compile_per_shape(devices.jitted(add, None, np.zeros(())))
    state = jax.numpy.zeros(())
    with jax.log_compiles(), caplog.at_level("WARNING"):
        for size in (2, 3, 2, 3):
            state, told = step(state, np.ones(size, np.float32))
            assert told == size
    assert state == 10
    assert sum(record.getMessage().startswith("Compiling jit(add)") for record in caplog.records) == 2


def test_parameters_lie_where_the_table_says() -> None:
    mesh = devices.mesh(config(Mesh(fsdp=2)))
    kernel, bias = np.ones((4, 6), np.float32), np.ones(6, np.float32)
    tree = {"layer_0": {"up": {"kernel": kernel, "bias": bias}, "norm": {"scale": bias}}}
    places = devices.shardings(tree, mesh)
    assert places is not None
    put = devices.put(tree, places)["layer_0"]
    assert put["up"]["kernel"].sharding.spec == PartitionSpec("fsdp", "tensor")
    assert put["norm"]["scale"].sharding.spec == PartitionSpec()
    assert put["up"]["kernel"].addressable_shards[0].data.shape == (2, 6)
    np.testing.assert_array_equal(put["up"]["kernel"], kernel)
