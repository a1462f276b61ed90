"""What an attacker with a recognizer gets out of a release: identification, verification, linkage, and who is framed.

Every number is a function of embeddings and names; nothing here reads a file. Vectors are unit rows, so a product is a
cosine. The attacks are those of Newton et al. 2005 (k-Same, IEEE TKDE 17(2)): naive, an anonymized photo against clear
ones, and parrot, against photos that were anonymized the same way; and, on both, what several photos add.
"""

from anonlib.audit.attacks.identify import first_of_each, rank_one
from anonlib.audit.attacks.rates import Rate, Shares, figure, rate

__all__ = ["Rate", "Shares", "figure", "first_of_each", "rank_one", "rate"]
