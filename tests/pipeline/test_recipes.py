"""On a mesh parameters travel between devices, the states of a batch do not; of tokens being written, the states do."""

import dataclasses
import math
import re
from functools import partial

import jax
import jax.numpy as jnp
import pytest

import full_size_programs as programs
from rag_jax.config.config import Compute, Config, Mesh
from rag_jax.core import training
from rag_jax.index.placement import Placement
from rag_jax.parallel import devices
from rag_jax.pipeline import recipes
from rag_jax.training import dry_run

# An embedding is looked up for all rows by the device that has its columns: what it found goes to the rows' device, all
# to all, which is as little as can be.
WHOLE = re.compile(r"= (.*) (?:all-gather|all-reduce|collective-permute|reduce-scatter)(?:-start)?\(")


@pytest.mark.extended
@pytest.mark.parametrize(
    ("compute", "lengths"), [(Compute(), ()), (Compute(scan=True, remat="dots"), (14,))], ids=["plain", "packed, loop"]
)
def test_no_collective_carries_the_states_of_a_batch(towns: Config, compute: Compute, lengths: tuple[int, ...]) -> None:
    generator = dataclasses.replace(towns.generator, lengths=lengths, dropout=0.1)
    config = dataclasses.replace(towns, generator=generator, compute=compute, mesh=Mesh(fsdp=2))
    tower, reader = dry_run.sizes(config)
    state, known, batch = dry_run.arguments(config, tower, reader, 1_000)
    mesh = devices.mesh(config)
    place = Placement(mesh, "float32", ("data", "fsdp"))
    recipe = recipes.recipe(config, tower, reader, 2, recipes.layout(config), place)
    gold = jax.ShapeDtypeStruct((config.batch_size, 1), jnp.int32)
    step = devices.jitted(partial(training.train_step, recipe), mesh, state)
    program = step.lower(state, known, batch, gold).compile().as_text()
    sent = [re.findall(r"f32\[([\d,]+)\]", each) for each in WHOLE.findall(program)]
    shapes = [tuple(size for size in map(int, each.split(",")) if size > 1) for shape in sent for each in shape]
    assert (32, 64) in shapes, "no parameter is gathered"
    vectors = (config.batch_size, 2, tower.vector_width)  # of the passages, which are spread over all devices
    assert not [shape for shape in shapes if len(shape) > 2 and shape != vectors]
    tokens = {
        2 * config.batch_size * each // parts for each in (config.generator.max_input, *lengths) for parts in (1, 2)
    }
    assert not [shape for shape in shapes if len(shape) == 2 and shape[0] in tokens]


def test_inputs_are_read_as_in_training_and_answers_written_without_moving_parameters(towns: Config) -> None:
    """Else the compiler exchanges the states of all inputs, or gathers all parameters for every token."""
    config = dataclasses.replace(towns, mesh=Mesh(fsdp=2))
    _, program = programs.compiled("answer", config)
    found = list(programs.exchanges(program.as_text()))
    width, ffn_width = config.generator.width, config.generator.ffn_width
    in_loops = {shape for _, shape, is_looped in found if is_looped}
    others = {shape for kind, shape, is_looped in found if not is_looped and kind != "all-to-all"}
    assert (width, ffn_width) in others, "no parameter is gathered"
    rows = config.batch_size * config.retriever.num_docs
    tokens = {rows * config.generator.max_input // parts for parts in (1, 2)}
    assert not [shape for shape in others if math.prod(shape[:-1]) in tokens], "of whole inputs"
    assert (rows * programs.BEAMS, ffn_width) in in_loops, "no states are exchanged"
    gathered = {shape for shape in in_loops if len(shape) == 2 and shape[0] != rows * programs.BEAMS}
    assert not {shape for shape in gathered if min(shape) >= width}, "parameters are gathered"
