"""Tries the readers of untrusted input with files changed at random, and counts what does not hold.

    python -m tests.fuzz.fuzz --inputs 20000 --seed 1 --kinds jpeg,png

Equal arguments try equal inputs. An input has 5 s and about 1.5 GiB of memory. The number of each hundredth is printed;
where one ends the process, `--first` goes on from there. The exit code is 1 where anything was found.
"""

from __future__ import annotations

import argparse
import collections
import faulthandler
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

from anonlib.errors import kind_and_place
from tests.fuzz.mutate import mutated
from tests.fuzz.properties import CHECKS
from tests.fuzz.seeds import KINDS, seeds

SHARES = {"jpeg": 35, "png": 20, "webp": 12, "other": 15, "tar": 10, "parquet": 4, "sidecar": 4}
MEMORY = 1536 << 20
SECONDS = 5


class TooLong(BaseException):
    """An input takes more than its time."""


def _ring(*_: object) -> None:
    raise TooLong


@contextmanager
def bounded() -> Iterator[None]:
    """This process may take MEMORY more than it has."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    handler = signal.signal(signal.SIGALRM, _ring)
    resource.setrlimit(resource.RLIMIT_AS, (in_use + MEMORY, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
        signal.signal(signal.SIGALRM, handler)


def tried(seed: int, number: int, kinds: list[str], files: dict[str, list[bytes]]) -> tuple[str, str, bytes]:
    """The kind of an input, what came of it (a find begins with '!'), and its bytes."""
    random = Random(f"{seed}-{number}")
    (kind,) = random.choices(kinds, [SHARES[kind] for kind in kinds])
    file = mutated(random, kind, random.choice(files[kind]), random.choice(files[kind]))
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        return kind, CHECKS[kind](file, random), file
    except TooLong:
        return kind, f"! it takes more than {SECONDS} s", file
    except Exception as error:  # noqa: BLE001  any is a find
        return kind, f"! {kind_and_place(error)}: {str(error)[:100]}", file
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=2000, help="how many (default: 2000)")
    parser.add_argument("--first", type=int, default=0, help="the number of the first (default: 0)")
    parser.add_argument("--seed", type=int, default=1, help="of the random numbers (default: 1)")
    parser.add_argument("--kinds", default=",".join(KINDS), help=f"of {', '.join(KINDS)} (default: all)")
    parser.add_argument("--keep", type=Path, help="where the first file of each find is kept")
    options = parser.parse_args()
    faulthandler.enable()
    files, counts, finds = seeds(), collections.Counter[str](), collections.Counter[str]()
    with bounded():
        for number in range(options.first, options.inputs):
            if number % 100 == 0:
                print(f"... {number:,}", flush=True)
            kind, answer, file = tried(options.seed, number, options.kinds.split(","), files)
            counts[f"{kind} found" if answer.startswith("!") else f"{kind} {answer}"] += 1
            if answer.startswith("!"):
                finds[f"{kind}: {answer[2:]}"] += 1
                print(f"{number}: {kind}: {answer[2:]}", flush=True)
                if options.keep:
                    options.keep.mkdir(parents=True, exist_ok=True)
                    (options.keep / f"{options.seed}-{number}.{kind}").write_bytes(file)
    print(", ".join(f"{count:,} {name}" for name, count in sorted(counts.items())))
    for find, count in finds.items():
        print(f"{count} times: {find}")
    return int(bool(finds))


if __name__ == "__main__":
    sys.exit(main())
