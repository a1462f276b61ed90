"""Identities for a network to bring along, of people who do not exist, so that no real person's vector ships."""

from __future__ import annotations

import numpy as np

from anonlib.privacy.clustering import normalized
from anonlib.synthesis.base import PublicFaces
from anonlib.synthesis.textures.ksame_net import BankVectors

NOBODIES = 3000
"""How many of them a file brings."""

_AGE_UNIT, _AGES = 100.0, (18.0, 80.0)


def nobodies(bank: PublicFaces) -> BankVectors:
    """NOBODIES of them, normal and as wide as the faces of `bank`: vector and age drawn together, by gender."""
    random = np.random.default_rng(0)
    women = bank.female >= 0.5
    drawn = []
    for group in (women, ~women):
        if group.sum() > 1:  # else there is no spread to draw from
            known = np.concatenate([bank.vectors, bank.age[:, None] / _AGE_UNIT], axis=1)[group].astype(np.float64)
            one = random.multivariate_normal(known.mean(axis=0), np.cov(known.T), NOBODIES // 2, method="eigh")
            drawn.append((one, np.full(len(one), float(group is women))))
    points = np.concatenate([one for one, _ in drawn]).astype(np.float32)
    female = np.concatenate([one for _, one in drawn]).astype(np.float32)
    return BankVectors(normalized(points[:, :-1]), female, np.clip(points[:, -1] * _AGE_UNIT, *_AGES))
