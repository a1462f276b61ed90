"""Tries the readers of untrusted input with files changed at random, and counts what does not hold.

    python -m tests.fuzz.fuzz --inputs 20000 --seed 1 --kinds jpeg,png

Equal arguments try equal inputs. Inputs are tried in a child process, so that one may crash it, has 5 s, and about
1.5 GiB of memory. The exit code is 1 where anything was found; `--keep FOLDER` keeps the first file of each find.
"""

from __future__ import annotations

import argparse
import collections
import os
import resource
import signal
import struct
import sys
import time
import traceback
from pathlib import Path
from random import Random

from anonlib.errors import kind_and_place
from tests.fuzz.mutate import mutated
from tests.fuzz.properties import CHECKS
from tests.fuzz.seeds import KINDS, seeds

SHARES = {"jpeg": 35, "png": 20, "webp": 12, "other": 15, "tar": 10, "parquet": 4, "sidecar": 4}
MEMORY = 1536 << 20
SECONDS, BATCH = 5, 200


def input_of(seed: int, number: int, kinds: list[str], files: dict[str, list[bytes]]) -> tuple[str, bytes, Random]:
    """The kind and bytes of an input, and the random numbers left for its check."""
    random = Random(f"{seed}-{number}")
    (kind,) = random.choices(kinds, [SHARES[kind] for kind in kinds])
    return kind, mutated(random, kind, random.choice(files[kind]), random.choice(files[kind])), random


class TooLong(BaseException):
    """An input takes more than its time."""


def _ring(*_: object) -> None:
    raise TooLong


def _child(seed: int, numbers: range, kinds: list[str], files: dict[str, list[bytes]], pipe: int) -> None:
    """Tries inputs one by one; tells the number before, and what came of it after."""
    signal.signal(signal.SIGALRM, _ring)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + MEMORY, in_use + MEMORY))
    for number in numbers:
        kind, file, random = input_of(seed, number, kinds, files)
        os.write(pipe, b"+" + struct.pack("<I", number))
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        try:
            answer = CHECKS[kind](file, random)
        except TooLong:
            answer = "! it takes more than 5 s"
        except AssertionError as error:
            answer = f"! {error}"
        except Exception as error:  # noqa: BLE001  any is a find
            answer = f"! {kind_and_place(error)}: {str(error)[:100]}"
            if os.environ.get("FUZZ_TRACE"):
                answer += traceback.format_exc()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        body = f"{kind}\t{answer}".encode(errors="replace")[:4000]
        os.write(pipe, b"=" + struct.pack("<I", len(body)) + body)


def tried(seed: int, numbers: range, kinds: list[str], files: dict[str, list[bytes]]) -> dict[int, str]:
    """Number -> 'KIND<tab>ANSWER' of each input."""
    found: dict[int, str] = {}
    while numbers:
        receiver, sender = os.pipe()
        child = os.fork()
        if not child:
            try:
                os.close(receiver)
                _child(seed, numbers, kinds, files, sender)
            finally:
                os._exit(0)
        os.close(sender)
        current = None
        with os.fdopen(receiver, "rb") as pipe:
            while mark := pipe.read(1):
                (value,) = struct.unpack("<I", pipe.read(4))
                if mark == b"+":
                    current = value
                else:
                    assert current is not None
                    found[current], current = pipe.read(value).decode(), None
        _, status = os.waitpid(child, 0)
        if current is None:
            if len(found) and max(found) + 1 == numbers.stop:
                break
            raise RuntimeError(f"no input can be made behind number {max(found, default=numbers.start)}")
        kind, _, _ = input_of(seed, current, kinds, files)
        ended = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit code {status >> 8}"
        found[current] = f"{kind}\t! it ends the process ({ended})"
        numbers = range(current + 1, numbers.stop)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=2000, help="how many (default: 2000)")
    parser.add_argument("--seed", type=int, default=1, help="of the random numbers (default: 1)")
    parser.add_argument("--kinds", default=",".join(KINDS), help=f"of {', '.join(KINDS)} (default: all)")
    parser.add_argument("--keep", type=Path, help="where the first file of each find is kept")
    options = parser.parse_args()
    kinds, files, start = options.kinds.split(","), seeds(), time.monotonic()
    counts: collections.Counter[str] = collections.Counter()
    finds: dict[str, list[int]] = collections.defaultdict(list)
    for first in range(0, options.inputs, BATCH):
        numbers = range(first, min(first + BATCH, options.inputs))
        for number, result in tried(options.seed, numbers, kinds, files).items():
            kind, answer = result.split("\t", 1)
            counts[f"{kind} found" if answer.startswith("!") else f"{kind} {answer}"] += 1
            if answer.startswith("!"):
                if result not in finds:
                    print(f"{number}: {kind}: {answer[2:]}", flush=True)
                    if options.keep:
                        options.keep.mkdir(parents=True, exist_ok=True)
                        _, file, _ = input_of(options.seed, number, kinds, files)
                        (options.keep / f"{options.seed}-{number}.{kind}").write_bytes(file)
                finds[result].append(number)
        if first % 5000 == 0:
            print(f"... {numbers.stop:,} inputs, {time.monotonic() - start:.0f} s", flush=True)
    print(", ".join(f"{count:,} {name}" for name, count in sorted(counts.items())))
    for result, numbers in finds.items():
        print(f"{len(numbers)} times: {result} (inputs {numbers[:5]})")
    print(f"{options.inputs:,} inputs, {len(finds)} finds, {time.monotonic() - start:.0f} s")
    return int(bool(finds))


if __name__ == "__main__":
    sys.exit(main())
