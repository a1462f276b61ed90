"""The people of the demo, none of whom ever lived: a seed each for `face-gan`, and the outline of the head it draws.

They are curated. Of 40,000 seeds drawn, models kept the well detected, frontal, mutually unlike and surely male or
female, and we chose 24 men and 24 women among those by eye. A segmentation model traced the outline of each head once.
So read no error rate off them: they were picked to look well, and GAN faces are still more alike than people are (5 %
of pairs of different people pass dlib's threshold for one false accept in 1000).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float32]

FACE = 64  # px, a side of the generator's image
LATENT = 100
CENTRE = (32.0, 34.0)  # of every outline, in generator pixels

_CODE = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_"
_STEP = 0.75  # generator pixels a step of _CODE


def f32(values: ArrayLike) -> Floats:
    return np.asarray(values, np.float32)


@dataclass(frozen=True)
class Person:
    """One identity: its latent's seed, "w" or "m" (as seen), "long" or "short" hair, and the radius of its head at 40
    angles, clockwise from the top, a letter of _CODE each."""

    seed: int
    looks: str
    hair: str
    outline: str

    def latent(self) -> Floats:
        """The identity (LATENT,), a draw of a standard normal."""
        return np.random.default_rng(self.seed).standard_normal(LATENT).astype(np.float32)

    def points(self) -> Floats:
        """The outline (40, 2) in generator pixels."""
        radius = np.array([_CODE.index(letter) for letter in self.outline]) * _STEP
        turn = 2 * np.pi * np.arange(len(radius)) / len(radius)
        return f32(np.stack([np.sin(turn), -np.cos(turn)], 1) * radius[:, None] + np.array(CENTRE))


# Women and men alternate, so the first n people are balanced whatever n is.
PEOPLE = (
    Person(33587, "w", "short", "jjkmnnligfebaaceiu-------xoligfedfhjnmkj"),
    Person(14116, "m", "short", "ihhieYUQPNOOPRTVYh-------dbZZabddglpqmki"),
    Person(13231, "w", "long", "jjklkgcaZYZadgkr--------mebbeeebeiklmmlj"),
    Person(12897, "m", "short", "ijjklkjhfffeeZblz------cYWTSSTTUUWZdfhii"),
    Person(10765, "w", "short", "iiloppnjecdcbZat-------iXVUVVVVUVXYadgji"),
    Person(27715, "m", "short", "hjlonlifbZcbaZat--------bYVSRQRSTVXZbceg"),
    Person(6485, "w", "short", "jjkigdbZXXXYZbeZacp-----ymfigfdfegimmmlj"),
    Person(22288, "m", "short", "ffjopnjecddcdabfo------jeaXVUTSTUWYbbdef"),
    Person(29727, "w", "short", "iilmkifdcaZYYYYbdl-------pcYcZYYYZbfijki"),
    Person(13522, "m", "short", "ihjjmlhbZZYYYWXZbi------xdcbaYYZcegjmlji"),
    Person(33492, "w", "long", "jjlmmjhfggefilpw---------vokhfefgdcceghh"),
    Person(11443, "m", "short", "fhiihgfedaccbabfv-------cYWVUTTSTWYacdef"),
    Person(5992, "w", "long", "jijmljfdcbcegjnu---------eaXVYcegikmoolj"),
    Person(3960, "m", "short", "eeddddccbbbbdcbelz------faWUSSRQSVYacdde"),
    Person(4234, "w", "long", "jikmrtnjhecbckpw--------zpiecaZZadilkkkj"),
    Person(39698, "m", "short", "hgffedccbZabbbcikz----icXUSRQQQQSVYbdhih"),
    Person(39852, "w", "long", "jklmrrokgdeeefeh-------omffifeedeghjllkj"),
    Person(7598, "m", "short", "jigcYWWVUUUVVWXZbet----shcXUTTTUWbfjlmlj"),
    Person(24154, "w", "long", "jjloqqplfcefefhw-------yeaXVTSRRQRTWbehi"),
    Person(31166, "m", "short", "jjkmpmiecbZYXYZadq------xngWVVWYadhlookj"),
    Person(25747, "w", "long", "jjlnpqokhgfggint------rbYWTQQXWWWWYgkmkj"),
    Person(27136, "m", "short", "hiihhgecbaYZaabdz------jdcbYVTTUVXZbeghh"),
    Person(11332, "w", "long", "jjlnplkieedefhju---------wpkfbbbZaegilkj"),
    Person(39012, "m", "short", "jklkgdbYWTRRRSVYceu----whegfdbbbdfghijkk"),
    Person(29446, "w", "long", "jjlkmhdbaYXYacmt---------wpjgeeeefijmlkj"),
    Person(28877, "m", "short", "jkloqroieZWVVWYadz------vbaZXWXXZgimlllk"),
    Person(27003, "w", "short", "jjllllkebabcccdhp------gdaYXWVWWYZbcefgh"),
    Person(1119, "m", "short", "hijkkihfdbbcehkt-------rfUSQPNNMNNQUXadf"),
    Person(20681, "w", "long", "ijihiihhhgfggimpv--------wojgfffghjlnmlj"),
    Person(3140, "m", "short", "jjklligecaacbbcdiv-------rkYXXYZcfjlkkkj"),
    Person(34970, "w", "long", "jjkjihfcbabcdfilz--------ugffeeffgllkklj"),
    Person(19582, "m", "short", "fghhgedbaYZabacfn------bWVUUXZaZZYYZbcfg"),
    Person(38997, "w", "short", "jjlmoopiedefeddu-------tXUTRQQQPRTXbfiij"),
    Person(8258, "m", "short", "jjjlmkhddccbabcgw-------pgZVTTTVWXYcdfjj"),
    Person(6966, "w", "long", "jjjmjdZXUUUXZddXw--------wpkhedeccfhjkkj"),
    Person(1929, "m", "long", "jklmmkigffffhjmu--------vldZXXXYacegjllk"),
    Person(11741, "w", "long", "jiigffeddddfhkpw---------unjgfeefghihiji"),
    Person(2448, "m", "short", "jiijopjdZWUTTTVXq-------caYWVWXZcimmonkj"),
    Person(39100, "w", "long", "iklmmigedddehjow---------uniaZZcbbcgijih"),
    Person(10186, "m", "short", "jjlmmkigebYXWYZoy------qdbcddddeegikmmkj"),
    Person(15117, "w", "long", "jkigfdbYWVVWXZbadm-------wpjhfefggilmmlk"),
    Person(11991, "m", "short", "jjkmlfbYWWVVUVWad--------bYWYdZZcdimqnlj"),
    Person(23343, "w", "short", "ijjgbYWURPPOPQSVXan-----vjffffefghigiiji"),
    Person(5128, "m", "long", "fhjlkhedccefgjmv--------wmiihfdccdeegggg"),
    Person(37256, "w", "long", "jjloosmjgfeffffccer-----rmgcZYYWVWYacgii"),
    Person(35602, "m", "long", "jjkmljhfedeegjnr--------gccegeffhjmookjj"),
    Person(29992, "w", "short", "jklmmjfcaZZZbfls--------vlfYYYXXWXYZbfji"),
    Person(26872, "m", "long", "jiihfdaYXUTUVYacjx-------rkgdbZZZabcfgii"),
)
