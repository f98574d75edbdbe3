"""Which accelerators multiply bfloat16 matrices, told by their compute capability."""

from collections.abc import Iterator
from types import SimpleNamespace

import jax
import pytest

from rag_jax.core.devices import has_bfloat16_products


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    """A process asks once, and remembers the answer for its own devices."""
    has_bfloat16_products.cache_clear()
    yield
    has_bfloat16_products.cache_clear()


CPU = SimpleNamespace(platform="cpu")


def gpu(capability: str) -> SimpleNamespace:
    return SimpleNamespace(platform="gpu", compute_capability=capability)


@pytest.mark.parametrize(
    ("devices", "expected"),
    [
        ([], True),
        ([CPU, CPU], True),
        ([SimpleNamespace(platform="tpu")], True),
        ([gpu("8.0")], True),  # A100
        ([gpu("9.0"), gpu("9.0"), CPU], True),
        ([gpu("12.0")], True),
        ([gpu("7.5")], False),  # T4
        ([gpu("7.0")], False),  # V100
        ([gpu("8.0"), gpu("7.5")], False),
        ([gpu("gfx90a")], False),  # AMD
        ([SimpleNamespace(platform="gpu")], False),
    ],
)
def test_every_gpu_must_be_an_a100_or_newer(devices: list, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "local_devices", lambda: devices)
    assert has_bfloat16_products() == expected


def test_the_devices_are_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "local_devices", lambda: [gpu("7.5")])
    assert not has_bfloat16_products()
    monkeypatch.setattr(jax, "local_devices", None)
    assert not has_bfloat16_products()
