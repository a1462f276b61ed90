import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray import cloudpickle

from anonlib.privacy.keys import Keyring

SECRET = b"0123456789abcdef"
text = st.text(max_size=12)


def test_a_secret_shorter_than_16_bytes_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 16"):
        Keyring(b"short", "r")


def test_the_repr_never_shows_the_secret() -> None:
    assert "0123456789abcdef" not in repr(Keyring(SECRET, "r"))


def test_a_keyring_is_never_pickled() -> None:
    for pickler in (pickle, cloudpickle):
        with pytest.raises(TypeError, match="never pickled"):
            pickler.dumps({"inside": Keyring(SECRET, "r")})


def test_the_check_is_of_the_secret_alone() -> None:
    check = Keyring(SECRET, "r").check()
    assert check == Keyring(SECRET, "another").check() != Keyring(SECRET + b"x", "r").check()
    assert SECRET.hex() not in check and len(check) == 64


@given(st.lists(text, max_size=4), st.lists(text, max_size=4))
def test_different_parts_give_different_digests(one: list[str], two: list[str]) -> None:
    keyring = Keyring(SECRET, "r")
    assert (keyring.digest("p", *one) == keyring.digest("p", *two)) == (one == two)


@given(text, text)
def test_a_draw_depends_on_release_secret_and_purpose(release: str, subject: str) -> None:
    draw = Keyring(SECRET, release).generator("z", subject).normal(size=4)
    assert (draw == Keyring(SECRET, release).generator("z", subject).normal(size=4)).all()
    for other in (
        Keyring(SECRET, release + "x").generator("z", subject),
        Keyring(SECRET + b"x", release).generator("z", subject),
        Keyring(SECRET, release).generator("y", subject),
    ):
        assert (draw != other.normal(size=4)).any()
