"""The keys of a job, all from one secret, and everything drawn by them: HMAC-SHA256(key, purpose, parts) (RFC 2104).

Nothing comes from a clock, a worker or an order: a rerun, a retry and a cluster of any size give the same bytes. Noise
is a PCG64 stream seeded by an HMAC, so an epsilon is computational (Mironov et al. 2009): it holds against those who
have not the drawing key and cannot tell both from random numbers. PCG64 was not made for cryptography.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import NoReturn

import numpy as np

MIN_PASSPHRASE = 16  # characters of a secret that is stretched
_MIN_BYTES = 32
_HEX = re.compile(rb"[0-9a-fA-F]{64,}")
# 43 digits of base64 are 32 bytes; a long word, without a capital, a small letter or a digit, is not taken for random.
_BASE64 = re.compile(rb"(?=.*[a-z])(?=.*[A-Z])(?=.*[0-9])[A-Za-z0-9+/_-]{43,}={0,2}")
_LEAST_DIFFERENT = 8
_SCRYPT_SALT = b"anonlib: passphrase to secret, version 1"


def stretched(given: bytes) -> bytes:
    """The secret of 32 bytes or more behind what a user gave.

    32 random bytes in hex or base64 are taken as they are. Anything else may be a passphrase, which a release's public
    key would let everybody guess: scrypt (RFC 7914) makes a try cost 32 MiB and a tenth of a second. Its salt is fixed,
    as a passphrase must sign the same everywhere. ValueError, a sentence without its subject, for a short one.
    """
    if is_random(given):
        return given
    if len(given) < MIN_PASSPHRASE:
        raise ValueError(
            f"has {len(given)} characters; a secret is 32 random bytes in hex or base64 (`openssl rand -hex 32`), or a "
            f"passphrase of at least {MIN_PASSPHRASE} characters"
        )
    return hashlib.scrypt(given, salt=_SCRYPT_SALT, n=1 << 15, r=8, p=1, maxmem=1 << 26, dklen=_MIN_BYTES)


def is_random(given: bytes) -> bool:
    """Whether it looks like 32 random bytes or more in hex or base64, which need no stretching."""
    written = _HEX.fullmatch(given) or _BASE64.fullmatch(given)
    return written is not None and len(set(given)) >= _LEAST_DIFFERENT


class Purpose(StrEnum):
    """The first of the strings that every HMAC is over. No value may change or be reused: releases were made with them.

    LABEL and CLUSTER say, as a second part, what a SUBJECT was formed by; PERSON names people in a ledger.
    """

    CERTIFICATE_CLASS = "certificate-class"
    CERTIFICATE_PERSON = "certificate-person"
    CLASS = "class"
    CLUSTER = "cluster"
    CONSENT = "consent"
    DEAL = "deal"
    DONOR = "donor"
    DRAWN_FACE = "drawn face"
    IDENTITY = "identity"
    INPUT = "input"
    KEY = "key"
    LABEL = "label"
    LENT_FACE = "lent face"
    LOT = "lot"
    PERSON = "person"
    PLAN_KEY = "plan-key"
    RELEASE = "release"
    REVIEW = "review"
    RUN_KEY = "run-key"
    SAMPLE = "sample"
    SAMPLING = "sampling"
    SHARD = "shard"
    SUBJECT = "subject"
    SURROGATE = "surrogate"
    SURROGATE_DIGEST = "surrogate-digest"


@dataclass(frozen=True)
class Keyring:
    """The keys of a job. No repr and no pickle shows them.

    `secret`: 32 bytes or more, as `stretched` gives them. `salt`: a workspace's random salt and a release's name. All
    that is drawn in a release is keyed by HKDF-SHA256 (RFC 5869) of both: a purge destroys the salt, and then not even
    the secret draws it again. People in a ledger are named by a key of the secret alone, and those names never leave.
    """

    secret: bytes = field(repr=False)
    salt: str = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.secret) < _MIN_BYTES:
            raise ValueError(f"the secret has {len(self.secret)} bytes; at least {_MIN_BYTES} are needed")

    def __reduce__(self) -> NoReturn:
        raise TypeError("a keyring holds the secret and is never pickled: a worker opens its own")

    @property
    def release(self) -> str:
        """24 hex digits by which a ledger tells this release from all others."""
        return self.pseudonym(Purpose.RELEASE)

    def check(self) -> str:
        """64 hex digits that are the same wherever the secret is, and from which nobody learns it."""
        return _hkdf(self.secret, b"", b"anonlib: check, version 1").hex()

    def digest(self, purpose: Purpose, *parts: str | bytes) -> bytes:
        """32 bytes that depend on the drawing key, the purpose and every part."""
        return _mac(self._drawing, purpose, *parts)

    def generator(self, purpose: Purpose, *parts: str | bytes) -> np.random.Generator:
        """A random stream of its own for this purpose and these parts."""
        return np.random.Generator(np.random.PCG64(int.from_bytes(self.digest(purpose, *parts), "big")))

    def pseudonym(self, purpose: Purpose, *parts: str | bytes) -> str:
        """24 hex digits standing for `parts` in this release alone."""
        return self.digest(purpose, *parts).hex()[:24]

    def person(self, *parts: str) -> str:
        """24 hex digits that name a person in a ledger, in all releases of this secret; they never leave."""
        return _mac(self._people, Purpose.PERSON, *parts).hex()[:24]

    @cached_property
    def _drawing(self) -> bytes:
        return _hkdf(self.secret, self.salt.encode(), b"anonlib: drawing key, version 1")

    @cached_property
    def _people(self) -> bytes:
        return _hkdf(self.secret, b"", b"anonlib: names of people in a ledger, version 1")


def _hkdf(secret: bytes, salt: bytes, purpose: bytes) -> bytes:
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(SHA256(), length=32, salt=salt, info=purpose).derive(secret)


def _mac(key: bytes, *parts: str | bytes) -> bytes:
    mac = hmac.new(key, digestmod=hashlib.sha256)
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        mac.update(len(raw).to_bytes(8, "big") + raw)
    return mac.digest()
