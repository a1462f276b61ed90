"""How fast anonlib is, beside what a user would pick instead: `make bench`.

One run, one machine, the same photos. What is compared is timed in turns (A B A B ...) and divided within the turn,
because a machine drifts more between runs than the programs differ. deface gets its own virtual environment, the
detector resolution and threshold that anonlib uses, and whichever of its two backends is faster here.

Every timing is of a whole process, from its start to its end. Ray's own start is in it and is also shown apart, since
a cluster has it behind it. Memory is measured in jobs of its own: to look costs time. All lies in .bench/, which git
ignores; the tables go to the terminal and .bench/benchmark.json.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmark_photos import Photos, drawn_photos, given_photos, link_files, write_tars
from benchmark_process import BACKENDS, Deface, run_process

from anonlib.config import JobConfig, load_config
from anonlib.execution.base import UnitResult
from anonlib.execution.ray import start
from anonlib.execution.rounds import MakeStage, Runner, Unit, open_runner
from anonlib.models.runtime import has_bf16

SIDE = 640  # px, the longer side that both detectors see
SCORE = 0.4  # threshold of both detectors
DRAWN = 200  # different photos, where none are given
JOB = 800  # photos of a timed job
ROUNDS = 3
AS_INSTALLED = 100  # photos for deface without --scale, which is slow
FACES = 200  # photos of the k-diff job
MEMORY = (500, 4000)  # photos
ACTORS = 2
K = 5
SAME_FACE = 0.5  # IoU
PRECISIONS = ("f32", "bf16")  # of anonlib's detector; the second only where the CPU has it

VERSIONS = ("anonlib", "numpy", "opencv-python-headless", "openvino", "onnxruntime", "ray", "simplejpeg")
ROOT = Path(__file__).resolve().parent.parent / ".bench"
LOG = ROOT / "last.log"

Box = Sequence[float]
Boxes = Mapping[str, Sequence[Box]]


@dataclass(frozen=True)
class Settings:
    """How much to measure."""

    job: int = JOB
    rounds: int = ROUNDS
    as_installed: int = AS_INSTALLED
    faces: int = FACES
    memory: tuple[int, ...] = MEMORY
    actors: int = ACTORS


def main() -> int:
    """Measure, print, write; 1 if there are no photos to measure on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, nargs="+", help="folders or tars of JPEGs; default: drawn scenes")
    parser.add_argument("--job", type=int, default=JOB, help="photos of a timed job")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--memory", type=int, nargs="*", default=MEMORY, help="photos of the memory jobs")
    parser.add_argument("--actors", type=int, default=ACTORS)
    parser.add_argument("--run", type=Path, nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.run:
        run_job(*asked.run)
        return 0
    try:
        photos = given_photos(asked.photos, fresh(ROOT / "given"), JOB) if asked.photos else drawn(DRAWN)
    except ValueError as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 1
    settings = Settings(job=asked.job, rounds=asked.rounds, memory=tuple(asked.memory), actors=asked.actors)
    result = measure(photos, settings)
    (ROOT / "benchmark.json").write_text(json.dumps(result, indent=2) + "\n")
    print(report(result))
    return 0


def drawn(many: int) -> Photos:
    say(f"photos of people who never lived, {many}, drawn once")
    return drawn_photos(ROOT / "photos", many)


def measure(photos: Photos, settings: Settings) -> dict[str, Any]:
    """Everything, as benchmark.json holds it."""
    deface = Deface(ROOT / "venv")
    result: dict[str, Any] = {"machine": machine(deface), "settings": asdict(settings)}
    result["photos"] = {"different": len(photos.files), "width": photos.width, "height": photos.height}
    result["speed"] = speed(photos, settings, deface)
    result["faces"] = equal_faces(photos, deface)
    say("k-diff")
    result["k-diff"] = anonlib_job(photos, min(settings.faces, len(photos.files)), "k-diff", settings.actors)
    result["memory"] = {}
    for many in settings.memory:
        say(f"memory, {many} photos")
        result["memory"][many] = anonlib_job(photos, many, "solid", settings.actors, look=True)
    shutil.rmtree(ROOT / "work", ignore_errors=True)
    return result


# ---- speed ----------------------------------------------------------------------------------------------------


def speed(photos: Photos, settings: Settings, deface: Deface) -> dict[str, Any]:
    """Rounds of every contender in turn: images/s each, anonlib's stages, and the ratios within a round."""
    scale = detector_size(photos)
    runs: dict[str, Callable[[], dict[str, Any]]] = {}
    for backend in BACKENDS:
        flags = ["--scale", f"{scale[0]}x{scale[1]}", "--thresh", str(SCORE), "--backend", backend]
        runs[f"deface, {backend}"] = partial(deface_job, photos, settings.job, deface, flags)
    for precision in PRECISIONS if has_bf16() else PRECISIONS[:1]:
        called = "" if precision == PRECISIONS[0] else f", {precision}"
        runs[f"anonlib, Ray{called}"] = partial(anonlib_job, photos, settings.job, "solid", settings.actors, precision)
        runs[f"anonlib, serial{called}"] = partial(anonlib_job, photos, settings.job, "solid", 0, precision)
    # What deface's own dependencies give, at its own settings.
    runs["deface as installed"] = partial(deface_job, photos, settings.as_installed, deface, ["--backend", "opencv"])
    rounds: list[dict[str, dict[str, Any]]] = []
    for number in range(settings.rounds):
        rounds.append({})
        for name, run in runs.items():
            rounds[-1][name] = run()
            say(f"round {number + 1}: {name} {rounds[-1][name]['images_s']:.1f} images/s")
    return {"rounds": rounds, "images_s": rates(rounds), "ratios": ratios(rounds)}


def rates(rounds: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, float]:
    """The median images/s of every contender."""
    return {name: median(row[name]["images_s"] for row in rounds) for name in rounds[0]}


def ratios(rounds: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, float]:
    """anonlib's images/s over those of deface's backend with the better median: the median of the rounds' ratios."""
    found = rates(rounds)
    best = max((name for name in found if name.startswith("deface,")), key=lambda name: found[name])
    result = {
        f"{name} / {best}": median(row[name]["images_s"] / row[best]["images_s"] for row in rounds)
        for name in found
        if name.startswith("anonlib")
    }
    for name in found:
        if name.startswith("anonlib, Ray"):
            running = [row[name]["images_s_ray_running"] / row[best]["images_s"] for row in rounds]
            result[f"{name.replace('Ray', 'Ray already running')} / {best}"] = median(running)
    return result


def detector_size(photos: Photos) -> tuple[int, int]:
    """(width, height) that SIDE makes of the photos."""
    scale = min(1.0, SIDE / max(photos.width, photos.height))
    return round(photos.width * scale), round(photos.height * scale)


def deface_job(photos: Photos, many: int, deface: Deface, flags: Sequence[str]) -> dict[str, Any]:
    """deface over a folder, as a user starts it; it writes its outputs beside the photos."""
    folder = fresh(ROOT / "work") / "deface"
    link_files(photos, many, folder)
    ran = run_process(deface.command(folder, flags), LOG)
    if len(list(folder.glob("*_anonymized.jpg"))) != many:
        raise SystemExit("benchmark: deface left photos out; see .bench/last.log.")
    return {"images": many, "images_s": many / ran.seconds, "seconds": ran.seconds}


def anonlib_job(
    photos: Photos, many: int, method: str, actors: int, precision: str = PRECISIONS[0], *, look: bool = False
) -> dict[str, Any]:
    """A whole job of anonlib in a process of its own; its places stay in .bench/work until the next."""
    work = fresh(ROOT / "work")
    write_tars(photos, many, work / "input")
    config = job_config(work, method, actors, precision)
    (work / "job.yaml").write_text(config.to_yaml())
    ran = run_process(
        [sys.executable, __file__, "--run", str(work / "job.yaml"), str(work / "result.json")], LOG, look=look
    )
    counts: dict[str, Any] = json.loads((work / "result.json").read_text())
    if counts["released"] + counts["no_face"] != many:
        raise SystemExit(f"benchmark: anonlib left photos out: {counts}")
    working = ran.seconds - counts["stages"]["start of Ray"]
    return counts | asdict(ran) | {"images_s": many / ran.seconds, "images_s_ray_running": many / working}


def job_config(work: Path, method: str, actors: int, precision: str) -> JobConfig:
    """The defaults of anonlib, with both programs' detector settings."""
    return load_config(
        overrides={
            "input.uri": str(work / "input"),
            "output.uri": str(work / "release"),
            "workspace.uri": str(work / "workspace"),
            "method.name": method,
            "method.k": K,
            "detector.side": SIDE,
            "detector.score": SCORE,
            "detector.precision": precision,
            "ray.actors": actors,
        }
    )


# ---- the process of one job -----------------------------------------------------------------------------------


class Stopwatch:
    """A runner that counts the seconds its stages take, their actors' start included."""

    def __init__(self, inner: Runner) -> None:
        self.inner, self.seconds = inner, 0.0
        self.meter, self.actors = inner.meter, inner.actors

    def run(self, make: MakeStage[Unit], units: Sequence[Unit]) -> Iterator[UnitResult]:
        began = time.monotonic()
        yield from self.inner.run(make, units)
        self.seconds += time.monotonic() - began


def run_job(job_file: Path, out: Path) -> None:
    """Run the job of a YAML file and write its counts and seconds a stage."""
    config = load_config(job_file)
    stages, began = {}, time.monotonic()

    def lap(name: str) -> None:
        nonlocal began
        stages[name], began = time.monotonic() - began, time.monotonic()

    if config.ray.actors != 0:
        start(config.ray)
    lap("start of Ray")
    from anonlib.job import Job

    busy: defaultdict[str, float] = defaultdict(float)

    def note(stage: str, outcome: UnitResult, _: int) -> None:
        busy[stage] += outcome.seconds

    watch = Stopwatch(open_runner(config.ray))
    job = Job(config, runner=watch, report=note)
    lap("open")
    job.scan()
    lap("scan")
    watch.seconds = 0.0
    plan = job.make_plan()
    lap("plan")
    stages["plan"] -= watch.seconds
    stages["surrogates"] = watch.seconds
    summary = job.render(plan)
    lap("render")
    out.write_text(json.dumps(asdict(summary) | {"stages": stages, "busy": busy}))


# ---- the same faces -------------------------------------------------------------------------------------------


def equal_faces(photos: Photos, deface: Deface) -> dict[str, int]:
    """How many faces of the different photos deface finds, anonlib finds in each precision, and both."""
    say("the same faces?")
    found = {precision: our_faces(photos, precision) for precision in (PRECISIONS if has_bf16() else PRECISIONS[:1])}
    folder = fresh(ROOT / "work") / "photos"
    link_files(photos, len(photos.files), folder)
    theirs = deface.boxes(folder, detector_size(photos), SCORE)
    counts = {"deface": sum(map(len, theirs.values()))}
    for precision, ours in found.items():
        counts[f"anonlib, {precision}"] = sum(map(len, ours.values()))
        counts[f"deface and anonlib, {precision}"] = in_both(ours, theirs)
    return counts


def our_faces(photos: Photos, precision: str) -> dict[str, list[Box]]:
    """The boxes that anonlib finds in each of the different photos, by key."""
    import pyarrow.parquet as pq

    anonlib_job(photos, len(photos.files), "solid", 0, precision)
    return {
        row["key"]: [face["box"] for face in row["faces"]]
        for path in sorted((ROOT / "work" / "release" / "manifest").glob("*.parquet"))
        for row in pq.read_table(path, columns=["key", "faces"]).to_pylist()
    }


def in_both(ours: Boxes, theirs: Boxes) -> int:
    """Faces (x0, y0, x1, y1, ...) that have a partner of at least SAME_FACE IoU in the same photo, each used once."""
    count = 0
    for key, boxes in ours.items():
        left = list(theirs.get(key, ()))
        for box in boxes:
            partner = max(left, key=lambda other: overlap(box, other), default=None)
            if partner is not None and overlap(box, partner) >= SAME_FACE:
                left.remove(partner)
                count += 1
    return count


def overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes."""
    wide = min(a[2], b[2]) - max(a[0], b[0])
    high = min(a[3], b[3]) - max(a[1], b[1])
    common = max(wide, 0.0) * max(high, 0.0)
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return common / (areas - common) if common else 0.0


# ---- around ---------------------------------------------------------------------------------------------------


def machine(deface: Deface) -> dict[str, Any]:
    """What this ran on, and how busy that was before it began."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": processor(),
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
        "anonlib": {name: importlib.metadata.version(name) for name in VERSIONS},
        "deface": deface.versions(),
    }


def processor() -> str:
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    return names[0] if names else platform.machine()


def fresh(folder: Path) -> Path:
    """The folder, empty."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def say(what: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {what}", file=sys.stderr, flush=True)


def report(result: Mapping[str, Any]) -> str:
    """The result as Markdown."""
    on, photos, faces, speeds = (result[name] for name in ("machine", "photos", "faces", "speed"))
    lines = [
        f"{on['cores']} cores ({on['processor']}), Python {on['python']}, load {on['load_before']:.1f} before the run",
        *(f"{side}: " + ", ".join(f"{k} {v}" for k, v in on[side].items()) for side in ("anonlib", "deface")),
        f"{result['settings']['job']} photos a job ({photos['different']} different, {photos['width']}x"
        f"{photos['height']}), detectors at {SIDE} px and {SCORE}, {result['settings']['rounds']} rounds",
        "",
    ]
    lines += table(("solid", "images/s"), [(name, f"{rate:.1f}") for name, rate in speeds["images_s"].items()])
    lines += table(("ratio", "median"), [(name, f"{ratio:.2f}") for name, ratio in speeds["ratios"].items()])
    lines += table(("faces found", "count"), [(name, str(count)) for name, count in faces.items()])
    last = speeds["rounds"][-1]
    jobs = {name: last[f"anonlib, {name}"] for name in ("Ray", "serial")} | {"k-diff": result["k-diff"]}
    lines += table(
        ("seconds", *jobs),
        [(stage, *(f"{job['stages'][stage]:.2f}" for job in jobs.values())) for stage in last["anonlib, Ray"]["stages"]]
        + [("whole process", *(f"{job['seconds']:.2f}" for job in jobs.values()))]
        + [("faces/s", *(f"{job['faces'] / job['seconds']:.1f}" for job in jobs.values()))],
    )
    lines += table(
        ("photos", "peak RSS MiB", "peak PSS MiB"),
        [(many, f"{ran['peak_rss_mib']:.0f}", f"{ran['peak_pss_mib']:.0f}") for many, ran in result["memory"].items()],
    )
    return "\n".join(lines)


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """Markdown lines, numbers to the right, a blank line behind."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return [f"| {' | '.join(map(str, row))} |" for row in (head, rule, *rows)] + [""]


if __name__ == "__main__":
    raise SystemExit(main())
