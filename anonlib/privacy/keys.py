"""Every draw and every pseudonym comes from HMAC(secret, release, subject, purpose).

Never from a clock, a worker or an order: a rerun, a retry and a cluster of any size give the same
bytes, and nobody without the secret can redraw them. HMAC is RFC 2104 over SHA-256; the parts are
length-prefixed so that no two lists of parts collide.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import NoReturn

import numpy as np

MIN_SECRET_BYTES = 16


@dataclass(frozen=True)
class Keyring:
    """The job's secret (bytes, at least 16) bound to one release's name. No repr and no pickle shows the secret."""

    secret: bytes = field(repr=False)
    release: str

    def __post_init__(self) -> None:
        if len(self.secret) < MIN_SECRET_BYTES:
            raise ValueError(f"the secret has {len(self.secret)} bytes; at least {MIN_SECRET_BYTES} are needed")

    def __reduce__(self) -> NoReturn:
        raise TypeError("a keyring holds the secret and is never pickled: a worker opens its own")

    def check(self) -> str:
        """64 hex digits that are the same wherever the secret is, and from which nobody learns it."""
        return self.lasting().digest("check").hex()

    def digest(self, purpose: str, *parts: str | bytes) -> bytes:
        """32 bytes that depend on the secret, the release, the purpose and every part."""
        mac = hmac.new(self.secret, digestmod=hashlib.sha256)
        for part in (self.release, purpose, *parts):
            raw = part.encode() if isinstance(part, str) else part
            mac.update(len(raw).to_bytes(8, "big") + raw)
        return mac.digest()

    def generator(self, purpose: str, *parts: str | bytes) -> np.random.Generator:
        """A random stream of its own for this purpose and these parts."""
        return np.random.Generator(np.random.PCG64(int.from_bytes(self.digest(purpose, *parts), "big")))

    def lasting(self) -> Keyring:
        """The same secret bound to no release: for names that must hold in all of them and never leave."""
        return Keyring(self.secret, "")

    def pseudonym(self, purpose: str, *parts: str | bytes) -> str:
        """24 hex digits standing for `parts` in this release alone."""
        return self.digest(purpose, *parts).hex()[:24]
