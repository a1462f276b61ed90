import base64
import hashlib
import pickle
import secrets

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray import cloudpickle

from anonlib.privacy.keys import Keyring, Purpose, is_random, stretched
from anonlib.verification.certificate import public_key

SECRET = b"0123456789abcdef" * 2
text = st.text(max_size=12)


def test_a_keyring_takes_no_short_secret_and_neither_shows_nor_pickles_one() -> None:
    with pytest.raises(ValueError, match="at least 32"):
        Keyring(SECRET[:-1], "r")
    shown = repr(Keyring(SECRET, "the salt"))
    assert not any(part in shown for part in ("0123456789abcdef", "salt"))
    for pickler in (pickle, cloudpickle):
        with pytest.raises(TypeError, match="never pickled"):
            pickler.dumps({"inside": Keyring(SECRET, "r")})


def test_the_check_and_the_names_in_a_ledger_are_of_the_secret_alone() -> None:
    one, same, other = Keyring(SECRET, "r"), Keyring(SECRET, "another"), Keyring(SECRET + b"x", "r")
    assert one.check() == same.check() != other.check()
    assert one.person("label", "Ada") == same.person("label", "Ada") != other.person("label", "Ada")
    assert SECRET.hex() not in one.check() and len(one.check()) == 64


def test_no_key_is_another() -> None:
    keyring = Keyring(SECRET, "")
    names = {keyring.person("Ada"), keyring.pseudonym("person", "Ada"), Keyring(SECRET, "r").pseudonym("person", "Ada")}
    assert len(names) == 3
    assert keyring.check() not in (keyring.digest("check").hex(), public_key(keyring.secret))


@given(st.lists(text, max_size=4), st.lists(text, max_size=4))
def test_different_parts_give_different_digests(one: list[str], two: list[str]) -> None:
    keyring = Keyring(SECRET, "r")
    assert (keyring.digest("p", *one) == keyring.digest("p", *two)) == (one == two)


@given(text, text)
def test_a_draw_depends_on_salt_secret_and_purpose(salt: str, subject: str) -> None:
    draw = Keyring(SECRET, salt).generator("z", subject).normal(size=4)
    assert (draw == Keyring(SECRET, salt).generator("z", subject).normal(size=4)).all()
    for other in (
        Keyring(SECRET, salt + "x").generator("z", subject),
        Keyring(SECRET + b"x", salt).generator("z", subject),
        Keyring(SECRET, salt).generator("y", subject),
    ):
        assert (draw != other.normal(size=4)).any()


# --- what users give ----------------------------------------------------------------------------------------------


@given(st.binary(min_size=32, max_size=48))
def test_random_bytes_in_hex_are_taken_as_they_are(raw: bytes) -> None:
    written = raw.hex().encode()
    assert stretched(written) == written or len(set(written)) < 8


def test_random_bytes_in_base64_are_taken_as_they_are() -> None:
    drawn = [secrets.token_bytes(32) for _ in range(300)]
    for code in (base64.b64encode, base64.urlsafe_b64encode, lambda raw: base64.b64encode(raw).rstrip(b"=")):
        assert sum(is_random(code(raw)) for raw in drawn) >= 295


@pytest.mark.parametrize(
    "given_",
    [
        b"passwordpassword",
        b"a passphrase of several words",
        b"correcthorsebatterystaplecorrecthorsebatterystaple",
        b"0" * 64,
        b"A1a" * 20,
        hashlib.sha256(b"hex").hexdigest()[:62].encode(),
        hashlib.sha256(b"bytes").digest(),
    ],
)
def test_anything_else_is_stretched_before_a_public_key_is_made_of_it(given_: bytes) -> None:
    made = stretched(given_)
    assert len(made) == 32 and made != given_ and made == stretched(given_)
    assert public_key(made) != public_key(given_)


def test_a_guess_costs_what_scrypt_costs() -> None:
    """By the numbers that RFC 7914 names, recomputed: 128 N r bytes are 32 MiB."""
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

    by_hand = Scrypt(b"anonlib: passphrase to secret, version 1", length=32, n=1 << 15, r=8, p=1)
    assert stretched(b"passwordpassword") == by_hand.derive(b"passwordpassword")


def test_a_short_passphrase_is_refused_in_a_sentence_without_it() -> None:
    with pytest.raises(ValueError, match=r"has 15 characters; .*openssl rand -hex 32.* at least 16") as problem:
        stretched(b"passwordpasswor")
    assert "passwor" not in str(problem.value)


# --- what may never change ----------------------------------------------------------------------------------------


def test_a_keyring_gives_what_it_always_gave() -> None:
    purposes = " ".join(f"{purpose.name}={purpose.value}" for purpose in Purpose)
    assert hashlib.sha256(purposes.encode()).hexdigest()[:16] == "d0d3d70cea689b2c", "no value may change"
    keyring = Keyring(SECRET, "the salt")
    assert keyring.check() == "e4e03d2009f9569597ca47e147d1b08e78d191cc3fca86a87bbb59128300054b"
    assert public_key(keyring.secret) == "3d16e1af9dabc05da87715618f26a93ece5cd42d97525b31a6ff973d31d74206"
    assert keyring.release == "d08b88af279e4e51de386ebf"
    assert keyring.person(Purpose.LABEL, "Ada") == "5322fb2cb84adae052d18b8c"
    assert keyring.pseudonym(Purpose.SUBJECT, Purpose.LABEL, "Zoë") == "532d5cbcefeb944650ab793d"
    photo = keyring.digest(Purpose.INPUT, b"photo").hex()
    assert photo == "0913d365b842e1cb4b40196f85a5bcf52188d296589d143225a642ac26e79775"
    assert keyring.generator(Purpose.IDENTITY, "one").integers(1 << 30, size=2).tolist() == [621434237, 325844320]
