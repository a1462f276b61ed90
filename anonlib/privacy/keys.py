"""The keys of a job, all from one secret, and everything drawn by them: HMAC(key, purpose, parts).

Three keys, because they live for different times:

    signing   for years: it signs certificates, and is recognized in the next release. It comes from the secret, or from
              a secret of its own, so that the other two may be destroyed while it signs on
    people    as long as a ledger: it names people in there, the same in all releases, and those names never leave
    drawing   as long as a workspace: HKDF-SHA256 (RFC 5869) of the secret with the workspace's random salt. Every draw,
              deal, pseudonym and digest in a release is keyed by it. A purge destroys the salt, and then nobody can
              compute them again, not even with the secret

Nothing comes from a clock, a worker or an order: a rerun, a retry and a cluster of any size give the same bytes. HMAC
is RFC 2104 over SHA-256; the parts are length-prefixed so that no two lists of parts collide.

The noise of a random mechanism is a PCG64 stream seeded by an HMAC. So an epsilon holds against those who have not the
drawing key and can tell neither HMAC-SHA256 nor PCG64 from random numbers: it is computational (Mironov et al. 2009),
not information-theoretic. PCG64 was not made for cryptography.
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

MIN_PASSPHRASE = 16
"""Characters of a secret that is stretched."""
_MIN_BYTES = 32
_HEX = re.compile(rb"[0-9a-fA-F]{64,}")
# 43 digits of base64 are 32 bytes. Random ones without a capital, a small letter or a digit are one in 1,500; those are
# stretched needlessly, which costs a tenth of a second. A long word is not taken for random.
_BASE64 = re.compile(rb"(?=.*[a-z])(?=.*[A-Z])(?=.*[0-9])[A-Za-z0-9+/_-]{43,}={0,2}")
_LEAST_DIFFERENT = 8
_SCRYPT_SALT = b"anonlib: passphrase to secret, version 1"


def stretched(given: bytes) -> bytes:
    """The secret of 32 bytes or more behind what a user gave.

    32 random bytes in hex or base64 are taken as they are. Anything else may be a passphrase, and a release's public
    key would let everybody try passphrases at 25,000 a second: scrypt (RFC 7914; n = 2^15, r = 8, p = 1) makes a try
    cost 32 MiB and a tenth of a second. Its salt is fixed, because a passphrase must sign the same everywhere; so one
    dictionary serves against all users of anonlib, and random bytes remain the better secret. ValueError, a sentence
    without its subject, for fewer than MIN_PASSPHRASE bytes.
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
    """What a key is used for: the first of the strings that every HMAC is over, and so part of every byte drawn by it.

    No value may change, nor be given to anything else: releases, ledgers and workspaces hold what was made by it.
    LABEL and CLUSTER say, as a second part, what a SUBJECT was formed by; PERSON names people in a ledger, by LABEL or
    SUBJECT.
    """

    CERTIFICATE_CLASS = "certificate-class"
    CERTIFICATE_PERSON = "certificate-person"
    CLASS = "class"
    CLUSTER = "cluster"
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
    """The three keys of a job. No repr and no pickle shows them.

    `secret`: 32 bytes or more, as `stretched` gives them. `salt`: what the drawing key is of beside the secret, a
    workspace's random salt and a release's name.
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
