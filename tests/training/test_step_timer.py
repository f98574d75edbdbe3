"""The figures of speed: model FLOPs as counted in the program itself, rates by hand, and a clock that adds up."""

import math
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

import handmade
from rag_jax.config.config import Config, Data, Retriever
from rag_jax.core import modes, scoring
from rag_jax.core.reading import InputLayout
from rag_jax.index.placement import Placement
from rag_jax.models import bart, bert, registry, t5
from rag_jax.training import step_timer
from rag_jax.types import Batch, Knowledge, Networks, RagParams, Tokens
from suites import first

TOWER = bert.BertConfig(vocab_size=96, width=48, layers=2, heads=2, ffn_width=80, max_positions=32)
READER = bart.BartConfig(
    vocab_size=128, width=64, encoder_layers=2, decoder_layers=3, heads=2, ffn_width=96, max_positions=64
)
OTHER = t5.T5Config(vocab_size=128, width=64, encoder_layers=2, decoder_layers=3, heads=2, head_width=24, ffn_width=96)
READERS = {"bart": READER, "t5": OTHER, "t5, gated": replace(OTHER, gated=True, tied_head=False)}
B, K, Q, P, L, T = 3, 4, 10, 13, 11, 7


def products(jaxpr) -> Iterator[float]:
    """The FLOPs of each matrix product in a program, and in what it calls."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left, out = equation.invars[0].aval, equation.outvars[0].aval
            yield 2.0 * math.prod(out.shape) * math.prod(left.shape[axis] for axis in contracted)
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_program):
            if _is_program(inner):
                yield from products(getattr(inner, "jaxpr", inner))


def _is_program(value) -> bool:
    return hasattr(value, "eqns") or hasattr(value, "jaxpr")


@pytest.mark.parametrize(
    ("name", "fuses"), first(2, [("bart", True), *((name, False) for name in READERS), ("t5", True)])
)
def test_model_flops_are_those_of_the_programs_matrix_products(name: str, fuses: bool) -> None:
    reader = READERS[name]
    networks = Networks(bert.tower(TOWER), registry.generator(reader))

    def tokens(*shape: int) -> Tokens:
        return Tokens(jnp.ones(shape, jnp.int32), jnp.full(shape[:-1], shape[-1], jnp.int32))

    ids = jnp.ones((B, T), jnp.int32)
    batch = Batch(tokens(B, Q), tokens(B, L), ids, ids, jnp.ones((B, T), bool))
    known = Knowledge(jnp.ones((8, TOWER.vector_width)), tokens(8, P))
    params = jax.eval_shape(
        lambda key: RagParams(bert.init(TOWER, key), registry.generator_of(reader).init(reader, key)), jax.random.key(0)
    )
    program = jax.make_jaxpr(partial(scoring.forward, networks, num_docs=K, layout=InputLayout(64, fuses=fuses)))(
        params, known, batch
    )
    forward = sum(products(program.jaxpr))
    retrieving = 2.0 * B * (8 + K) * TOWER.vector_width
    told = step_timer.flops(TOWER, reader, B, K, (Q, P + L, T), True, fuses)
    assert told / 3 == pytest.approx(forward - retrieving, rel=1e-3)
    asked = step_timer.flops(TOWER, reader, B, 0, (Q, P + L, T), True) / 3
    assert step_timer.flops(TOWER, reader, B, K, (Q, P + L, T), False, fuses) == pytest.approx(told - 2 * asked)


def test_rates_are_by_the_seconds_of_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    clock = step_timer.StepTimer()
    for _ in range(2):
        with clock("input"):
            now[0] += 0.5
        with clock("step"):
            now[0] += 1.5
        clock.saw(8)
    told = clock.close(12.5, 1e9)
    assert told["seconds"] == 4.0
    assert (told["examples/s"], told["tokens/s"], told["model_flops/s"]) == (4.0, 50.0, 4e9)
    assert (told["time/input"], told["time/step"]) == (0.25, 0.75)
    assert told["memory"] > 0
    now[0] += 2.0
    clock.saw(1)
    again = clock.close(1.0, 1.0)
    assert again["examples/s"] == 0.5
    assert "time/input" not in again


def test_a_section_inside_another_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    clock = step_timer.StepTimer()
    with clock("input"):
        now[0] += 1.0
        for _ in range(2):
            with clock("retrieval"):
                now[0] += 1.5
    told = clock.close(1.0, 1.0)
    assert (told["time/input"], told["time/retrieval"]) == (0.25, 0.75)


def test_the_search_inside_a_step_is_a_share_of_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    clock = step_timer.StepTimer(searching=0.5)
    for _ in range(2):
        for _ in range(3):
            with clock("step"):
                now[0] += 2.0
            clock.saw(1)
        told = clock.close(1.0, 1.0)
        assert (told["time/step"], told["time/retrieval"]) == (1.0, 0.25)


@pytest.mark.parametrize(("devices", "utilisation"), [(1, 0.5), (2, 0.25)])
def test_the_utilisation_is_of_the_devices_of_the_mesh(
    monkeypatch: pytest.MonkeyPatch, devices: int, utilisation: float
) -> None:
    """The run leaves the others idle."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(step_timer, "peak", lambda: 4e9)
    monkeypatch.setattr(jax, "devices", lambda: [None] * 8)
    clock = step_timer.StepTimer(devices=devices)
    clock.saw(4)
    now[0] += 2.0
    assert clock.close(1.0, 1e9)["mfu"] == utilisation


@pytest.mark.parametrize(
    ("changes", "expected"),
    [({}, 3), ({"prior_docs": 5}, 5), ({"candidates": 6}, 6), ({"candidates": 6, "prior_docs": 5}, 6)],
)
def test_the_search_that_is_timed_is_that_of_a_step(changes: dict[str, int], expected: int) -> None:
    searched, known = [], handmade.knowledge()

    def retrieve(lookup, queries, knowledge, num_docs, positives):
        searched.append((queries.shape, num_docs))
        return modes.retrieve_nearest(lookup, queries, knowledge, num_docs, positives)

    retriever = Retriever("tower", num_docs=3, **changes)
    components = SimpleNamespace(
        config=Config(Data(Path("passages.jsonl")), retriever, batch_size=4),
        recipe=handmade.recipe(num_docs=3)._replace(retrieve=retrieve, num_microbatches=2),
        bi_encoder=SimpleNamespace(config=SimpleNamespace(vector_width=handmade.D)),
        placement=Placement(),
        knowledge=known,
    )
    assert step_timer.search_seconds(components) > 0
    assert searched == [((2, handmade.D), expected)], "compiled once, for a part of the batch"


@pytest.mark.parametrize(
    ("kind", "rate"),
    [
        ("NVIDIA H200", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA L40", None),
        ("TPU v5 lite", 197e12),
        ("TPU v5p", 459e12),
        ("cpu", None),
    ],
)
def test_the_peak_of_a_device_is_the_makers_or_none(
    monkeypatch: pytest.MonkeyPatch, kind: str, rate: float | None
) -> None:
    class Device:
        device_kind = kind

    monkeypatch.setattr(jax, "devices", lambda: [Device()] * 4)
    assert step_timer.peak() == rate
