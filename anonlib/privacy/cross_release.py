"""Classes that stay k-anonymous over releases: who hid together once stays together, and who is absent is counted out.

Who sees two releases intersects: a person's photos hide it in one class each time, and only the members of both can be
that person. Classes formed anew for every release intersect to a few persons, often to one (Fung, Wang, Fu and Pei
2008). So an old class never changes: newcomers form classes of their own.

Absence tells as much as presence. Of a class of which some members are in the second release and some are not, a photo
of the first can be placed by whether its person is seen again. Members with the same appearances in all releases are
therefore the only ones that hide each other, and a class may be shown again if each such group has at least k persons.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from anonlib.privacy.classes import effective_k


def may_be_shown(
    members: Sequence[int],
    releases: Sequence[Collection[int]],
    photos: NDArray[np.int64],
    *,
    k: int,
    absences_known: bool = True,
) -> bool:
    """Whether an old class hides its members once this release is added to the earlier ones.

    `releases`: the persons that each earlier release showed; `photos` (n,): of each person in this one, 0 if absent.
    Unless `absences_known`, an attacker is assumed not to know who is missing from a release.
    """
    present = [int(photos[member]) for member in members if photos[member]]
    if not absences_known:
        return len(members) >= k and bool(present)
    seen = Counter((*(member in shown for shown in releases), bool(photos[member])) for member in members)
    return effective_k(present) >= k and min(seen.values()) >= k
