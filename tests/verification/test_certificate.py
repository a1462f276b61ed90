"""A certificate has one spelling, one root and one signer."""

from __future__ import annotations

import hmac
import json
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from anonlib.errors import VerificationError
from anonlib.verification.certificate import (
    K_ANONYMITY,
    VERSION,
    Certificate,
    CertifiedCounts,
    CertifiedTable,
    Claim,
    Scope,
    merkle_leaf,
    merkle_root,
    public_key,
    shard_leaf,
)

SECRET = b"sixteen bytes or more"
ONE = Certificate(
    version=VERSION,
    anonlib="0.1.0",
    release="november – Größe",
    run="ab" * 32,
    run_sha256="cd" * 32,
    method={"name": "k-diff", "k": 5, "own_angle": 75.0, "texture": None},
    claim=Claim(K_ANONYMITY, k=5),
    counts=CertifiedCounts(shards=1, images=2, released=2, faces=3, replaced=2, solid=1),
    models={"centerface": {"sha256": "ef" * 32, "licence": "MIT"}},
    merkle_root="01" * 32,
    tables=(CertifiedTable("classes.parquet", "23" * 32, 4), CertifiedTable("surrogates.parquet", "45" * 32, 3)),
    scope=Scope(20, 24, 18, {"female, age-0": 12, "male, age-1": 8}),
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)


def encodable(document: object) -> bool:
    try:
        json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


# The leaves and roots of the test vectors that come with Certificate Transparency's reference code.
CT_LEAVES = ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
CT_ROOTS = {
    0: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    2: "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    3: "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
}


@pytest.mark.parametrize("count", CT_ROOTS)
def test_the_tree_is_that_of_rfc_6962(count: int) -> None:
    assert merkle_root([merkle_leaf(bytes.fromhex(one)) for one in CT_LEAVES[:count]]) == CT_ROOTS[count]


def test_every_part_of_a_shard_is_in_its_leaf() -> None:
    usual = ("a", "1", "2", {"data/a.tar": "3"})
    changes = [(0, "b"), (1, "0"), (2, "0"), (3, {"data/a.tar": "0"}), (3, {"data/b.tar": "3"}), (3, {})]
    others = [shard_leaf(*usual[:at], value, *usual[at + 1 :]) for at, value in changes]  # type: ignore[arg-type]
    assert len({shard_leaf(*usual), *others}) == 7


def test_a_signed_certificate_is_read_back_and_is_the_same_every_time() -> None:
    made = ONE.sign(SECRET)
    read = Certificate.from_bytes(made.to_bytes())
    assert read == made == made.sign(SECRET)
    read.check_signature("it")
    shown = made.to_bytes() + repr(made).encode()
    assert SECRET not in shown and SECRET.hex().encode() not in shown


def test_the_key_is_rfc_5869_of_the_secret_for_this_purpose_alone() -> None:
    """By hand, since whoever pinned a key relies on its never changing, whatever the release."""
    extracted = hmac.digest(bytes(32), SECRET, "sha256")
    seed = hmac.digest(extracted, b"anonlib: Ed25519 key that signs certificates, version 1" + b"\x01", "sha256")
    by_hand = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    assert public_key(SECRET) == by_hand.hex() == replace(ONE, release="december").sign(SECRET).public_key


@settings(deadline=None)
@given(st.binary(max_size=60) | json_values.filter(encodable).map(lambda one: json.dumps(one).encode()))
def test_what_is_no_certificate_is_a_sentence(data: bytes) -> None:
    with pytest.raises(VerificationError, match="cannot be read"):
        Certificate.from_bytes(data)


@pytest.mark.parametrize("bit", [0x01, 0x20])
def test_a_certificate_with_any_byte_changed_is_not_believed(bit: int) -> None:
    """0x20 is the difference between a small letter and a capital, which hex does not care about."""
    good = ONE.sign(SECRET).to_bytes()
    for at in range(len(good)):
        bad = bytearray(good)
        bad[at] ^= bit
        with pytest.raises(VerificationError):
            Certificate.from_bytes(bytes(bad)).check_signature("it")


def test_a_key_given_twice_is_not_read_one_way_and_signed_another() -> None:
    data = ONE.sign(SECRET).to_bytes().replace(b'"anonlib":"0.1.0"', b'"anonlib":"0.1.0","anonlib":"0.1.0"')
    with pytest.raises(VerificationError, match="canonical form"):
        Certificate.from_bytes(data)
