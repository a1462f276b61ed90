"""What a decoder's file promises: the same face from the same vector, and a sentence where it is damaged."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from anonlib.errors import ModelUnusable
from anonlib.synthesis.base import DecoderNotes
from anonlib.synthesis.canonical import SIZE
from anonlib.synthesis.textures.face_space import region
from anonlib.synthesis.textures.linear import BOUND, Decoder, read, to_bytes
from tests.support.decoders import Fit

ABOUT = DecoderNotes("faces that a program drew", "nobody's", 20, commercial=False)
DIMENSION, DIRECTIONS, DETAIL, SHAPE, FACES = 16, 10, 6, 4, 20


def arrays() -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    pixels, codes = 3 * int(region().sum()), DETAIL + SHAPE
    sizes = {
        "detail_mean": (pixels,),
        "detail": (DETAIL, pixels),
        "shape_mean": (1404,),
        "shape": (SHAPE, 1404),
        "centre": (DIMENSION,),
        "axes": (DIRECTIONS, DIMENSION),
        "offset": (DIRECTIONS,),
        "weights": (DIRECTIONS + 2, codes),
        "intercept": (codes,),
        "bank_vectors": (FACES, DIMENSION),
        "bank_codes": (FACES, codes),
    } | {f"bank_{name}": (FACES,) for name in ("female", "age", "happy")}
    drawn = {name: 0.3 * rng.standard_normal(size).astype(np.float32) for name, size in sizes.items()}
    return drawn | {"stretch": np.array([2.0], np.float32)}


@pytest.fixture(scope="module")
def data() -> bytes:
    return to_bytes(ABOUT, arrays())


@pytest.fixture(scope="module")
def decoder(data: bytes) -> Decoder:
    return Decoder.from_bytes(data)


def unit(seed: int, dimension: int = DIMENSION) -> NDArray[np.float32]:
    z = np.random.default_rng(seed).standard_normal(dimension)
    return np.asarray(z / np.linalg.norm(z), np.float32)


def test_the_same_arrays_give_the_same_file_and_the_digest_is_its_sha256(data: bytes, decoder: Decoder) -> None:
    assert to_bytes(ABOUT, arrays()) == data
    assert decoder.digest == hashlib.sha256(data).hexdigest() and decoder.about == ABOUT


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 10**6))
def test_the_same_vector_gives_the_same_face_to_the_last_bit(fitted: Fit, seed: int) -> None:
    z = unit(seed, len(fitted.decoder.centre))
    first, again = (each.decode(z, 0.9, 40) for each in (fitted.decoder, Decoder.from_bytes(fitted.path.read_bytes())))
    assert first.to_bytes() == again.to_bytes() and first.detail.tobytes() == again.detail.tobytes()
    assert first.detail.shape == (SIZE, SIZE, 3) and np.isfinite(first.detail).all()


def test_every_vector_gives_an_identity_of_equal_strength() -> None:
    known = arrays()
    weights = known["weights"].copy()
    weights[:, :DETAIL], weights[-2:] = 0, 0
    changes = {"shape": np.linalg.qr(known["shape"].T)[0].T, "weights": weights, "intercept": 0 * known["intercept"]}
    decoder = Decoder.from_bytes(to_bytes(ABOUT, known | changes))
    for seed in range(20):
        own = decoder.decode(unit(seed), 0.5, 40).shape.ravel() - decoder.space.shape_mean
        assert np.linalg.norm(own) == pytest.approx(decoder.stretch, rel=0.01)


@settings(deadline=None)
@given(st.integers(0, 10**6), st.floats(0.01, 1e4))
def test_no_direction_counts_for_more_than_the_bound(seed: int, size: float) -> None:
    axes = (size * np.random.default_rng(seed).standard_normal((DIRECTIONS, DIMENSION))).astype(np.float32)
    assert np.abs(read(unit(seed)[None], axes, np.zeros(DIRECTIONS, np.float32))).max() <= BOUND


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: b"text",
        lambda d: d[: len(d) // 2],
        lambda d: d[:-30],
        lambda d: d[: len(d) // 3] + bytes([d[len(d) // 3] ^ 255]) + d[len(d) // 3 + 1 :],
    ],
    ids=["text", "half", "no directory", "one byte"],
)
def test_damage_is_a_sentence(data: bytes, damage: Callable[[bytes], bytes]) -> None:
    with pytest.raises(ModelUnusable, match=r"damaged or no decoder at all; make it again with `anonlib fit-decoder`"):
        Decoder.from_bytes(damage(data))


def test_a_file_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anonlib.synthesis.textures.linear.VERSION", 99)
    later = to_bytes(ABOUT, arrays())
    monkeypatch.undo()
    with pytest.raises(ModelUnusable, match="version 99"):
        Decoder.from_bytes(later)
