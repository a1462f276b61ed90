"""Pseudonyms and digests of the shape that a certificate's tables have, the same for the same parts."""

from __future__ import annotations

import hashlib


def digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def name(*parts: object) -> str:
    return digest(*parts)[:24]
