"""How fast anonlib is, beside what a user would pick instead: `make bench`.

One run, one machine, the same photos. What is compared is timed in turns (A B A B ...) and divided within the turn,
because a machine drifts more between runs than the programs differ; ratios are told with the least and the greatest.
deface gets its own virtual environment, the detector resolution and threshold that anonlib uses, and whichever of its
two backends is faster here. The floor beside them is what the cores could do at best: the network, decoding and
encoding alone, on all cores, everything loaded.

Every other timing is of a whole process, from its start to its end, as a user starts it. Ray's own start is timed
apart and taken off for a cluster, which has it behind it. Memory is read from /proc, in jobs of its own: to look costs
time. All lies in .bench/, which git ignores; the tables go to the terminal and .bench/benchmark.json.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
import psutil
import simplejpeg
from demo_data import PEOPLE, SCENES, Generator, Photo, compose, generator_from_onnx
from demo_photo import develop, draw_scene
from scipy.optimize import linear_sum_assignment

from anonlib.config import load_config
from anonlib.faces.centerface import CenterFaceDetector
from anonlib.models.cache import model_bytes
from anonlib.models.runtime import Placement, has_bf16

SCORE = 0.4  # threshold of both detectors
DRAWN = 200  # different photos
JOB = 800  # photos of a timed job
ROUNDS = 3
AS_INSTALLED = 100  # photos for deface without --scale, which is slow
FACES = 200  # photos of the k-diff job
MEMORY = (500, 4000)  # photos
ACTORS = 2
K = 5
SAME_FACE = 0.5  # IoU
PRECISIONS = ("f32", "bf16") if has_bf16() else ("f32",)
CORES = len(os.sched_getaffinity(0))
FEW = 5  # of so many photos one has people, in the second comparison
WIDTH, HEIGHT = 1280, 720  # px of a drawn photo
SEEN = (640, 360)  # px that both detectors see
NOISE, TRUNCATION = 0.15, 0.85  # as in the demo: two photos of a person differ a little
SHARD = 50  # photos a tar
LOOK_EVERY = 0.25  # seconds between two looks at memory

PACKAGES = ("deface==1.5.0", "onnx", "onnxruntime")  # it brings the OpenCV backend alone; its README recommends these
BACKENDS = ("onnxrt", "opencv")
VERSIONS = ("anonlib", "numpy", "opencv-python-headless", "openvino", "onnxruntime", "ray", "simplejpeg")
ROOT = Path(__file__).resolve().parent.parent / ".bench"
START = """
import time
began = time.monotonic()
from anonlib.config import RayConfig
from anonlib.execution.ray import start
start(RayConfig(actors=2))
print(time.monotonic() - began, flush=True)
"""
BOXES = """
import json, sys
from pathlib import Path
import imageio.v2 as imageio
from deface.centerface import CenterFace
folder, width, height, score = sys.argv[1:]
detector = CenterFace(in_shape=(int(width), int(height)))
print(json.dumps({
    file.stem: detector(imageio.imread(file), threshold=float(score))[0].tolist()
    for file in sorted(Path(folder).iterdir())
}))
"""

Photos = Sequence[Path]
Box = Sequence[float]
Result = dict[str, Any]


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--job", type=int, default=JOB, help="photos of a timed job")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--memory", type=int, nargs="*", default=MEMORY, help="photos of the memory jobs")
    parser.add_argument("--actors", type=int, default=ACTORS)
    parser.add_argument("--people", type=Path, help="JPEGs of people who differ, for k-diff; drawn ones look alike")
    parser.add_argument("--floor", nargs=2, metavar=("FOLDER", "PRECISION"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.floor:
        print(bare(sorted(Path(options.floor[0]).iterdir()), options.floor[1]))
        return 0
    python, photos = deface_python(ROOT / "venv"), drawn_photos(ROOT / "photos", DRAWN)
    compile_imports(photos, options.actors, python)
    settings = {name: getattr(options, name) for name in ("job", "rounds", "actors")}
    result: Result = {"machine": machine(python), "settings": settings, "memory": {}}
    result["speed"] = speed(photos, options, python)
    result["few faces"] = speed(few_faces(photos, ROOT / "empty"), options, python)
    result["faces"] = equal_faces(photos, python)
    people = sorted(options.people.iterdir()) if options.people else photos[:FACES]
    result["k-diff"] = new_faces(people, options, python)
    for many in options.memory:
        say(f"memory, {many} photos")
        result["memory"][many] = anonlib_job(photos, many, "solid", options.actors, look=True)
    shutil.rmtree(ROOT / "work", ignore_errors=True)
    (ROOT / "benchmark.json").write_text(json.dumps(result, indent=2) + "\n")
    print(report(result))
    return 0


# ---- the photos: both programs get the same bytes, deface as files, anonlib as tars ---------------------------------


def repeated(photos: Photos, many: int) -> list[tuple[str, Path]]:
    """`many` names of JPEGs with a file each, going round."""
    return [(f"photo-{number:06d}.jpg", photos[number % len(photos)]) for number in range(many)]


def link(photos: Photos, many: int, folder: Path) -> None:
    """A folder of links to the photos."""
    folder.mkdir(parents=True)
    for name, file in repeated(photos, many):
        (folder / name).symlink_to(file.resolve())


def pack(photos: Photos, many: int, folder: Path) -> None:
    """A folder of tars of SHARD photos each."""
    folder.mkdir(parents=True)
    named = repeated(photos, many)
    for start in range(0, many, SHARD):
        with tarfile.open(folder / f"{start // SHARD:05d}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for name, file in named[start : start + SHARD]:
                tar.add(file, name)


def drawn_photos(folder: Path, many: int) -> Photos:
    """`many` scenes with one to three people who never lived, drawn on first use and kept in `folder`."""
    files = [folder / f"{number:05d}.jpg" for number in range(many)]
    if not all(file.exists() for file in files):
        say(f"photos of people who never lived, {many}, drawn once")
        folder.mkdir(parents=True, exist_ok=True)
        generator = generator_from_onnx(model_bytes("face-gan"))
        for number, file in enumerate(files):
            file.write_bytes(draw(number, generator))
    return files


def few_faces(photos: Photos, folder: Path) -> Photos:
    """One photo of people, then FEW - 1 of places alone, and so on; drawn on first use and kept in `folder`."""
    files = [folder / f"{number:05d}.jpg" for number in range(len(photos))]
    if not all(file.exists() for file in files):
        folder.mkdir(parents=True, exist_ok=True)
        for number, file in enumerate(files):
            rng = np.random.default_rng(number)
            pixels = develop(draw_scene(WIDTH, HEIGHT, tuple(SCENES)[number % len(SCENES)], rng), rng)
            file.write_bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), 92, colorsubsampling="420"))
    return [(photos if number % FEW == 0 else files)[number] for number in range(len(photos))]


def draw(number: int, generator: Generator) -> bytes:
    """The JPEG of one scene; the same number gives the same scene.

    A wide photo fills the frame and loses its lowest rows; a narrow one stands in a scene of its own kind.
    """
    rng = np.random.default_rng(number)
    people = tuple(rng.choice(len(PEOPLE), 1 + number % 3, replace=False).tolist())
    photo = Photo(people, tuple(SCENES)[number % len(SCENES)])
    identity = np.stack([PEOPLE[index].latent() for index in people])
    latents = TRUNCATION * identity + NOISE * rng.standard_normal(identity.shape)
    pixels, _ = compose(photo, list(generator(latents.astype(np.float32))), rng)
    height, width = pixels.shape[:2]
    if width / height > 1.4:
        frame = cv2.resize(pixels, (WIDTH, round(height * WIDTH / width)), interpolation=cv2.INTER_CUBIC)[:HEIGHT]
    else:
        large = cv2.resize(pixels, (round(width * HEIGHT / height), HEIGHT), interpolation=cv2.INTER_CUBIC)
        frame = np.asarray(np.clip(draw_scene(WIDTH, HEIGHT, photo.scene, rng), 0, 1) * 255, np.uint8)
        left = (WIDTH - large.shape[1]) // 2
        frame[:, left : left + large.shape[1]] = large
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(frame, np.uint8), 92, colorsubsampling="420"))


# ---- speed ----------------------------------------------------------------------------------------------------


def speed(photos: Photos, options: argparse.Namespace, python: Path) -> Result:
    """Rounds of every contender in turn: images/s each, anonlib's stages, and the ratios within a round."""
    runs: dict[str, Callable[[], Result]] = {}
    for backend in BACKENDS:
        flags = ["--scale", "{}x{}".format(*SEEN), "--thresh", str(SCORE), "--backend", backend]
        runs[f"deface, {backend}"] = partial(deface_job, photos, options.job, python, flags)
    for precision in PRECISIONS:
        for name, actors in (("Ray", options.actors), ("serial", 0)):
            runs[f"anonlib, {name}, {precision}"] = partial(
                anonlib_job, photos, options.job, "solid", actors, precision
            )
        runs[f"floor, {precision}"] = partial(floor, photos, options.job, precision)
    # What deface's own dependencies give, at its own settings.
    runs["deface as installed"] = partial(deface_job, photos, AS_INSTALLED, python, ["--backend", "opencv"])
    rounds: list[dict[str, Result]] = []
    for number in range(options.rounds):
        rounds.append({})
        for name, run in runs.items():
            rounds[-1][name] = run()
            say(f"round {number + 1}: {name} {rounds[-1][name]['images_s']:.1f} images/s")
    return {"rounds": rounds, "images_s": rates(rounds), "ratios": ratios(rounds)}


def compile_imports(photos: Photos, actors: int, python: Path) -> None:
    """Start every program once: Python compiles what it imports and keeps that, as pip does for a user."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    for backend in BACKENDS:
        deface_job(photos, 1, python, ["--backend", backend])
    for many in (0, actors):
        anonlib_job(photos, 1, "solid", many)
        anonlib_job(photos, K * 2, "k-diff", many)


def new_faces(people: Photos, options: argparse.Namespace, python: Path) -> Result:
    """Rounds of k-diff and of deface's blur, which only hides, over the same photos, each photo once."""
    rounds: list[dict[str, Result]] = []
    for number in range(options.rounds):
        ours = anonlib_job(people, len(people), "k-diff", 0)
        rounds.append({"anonlib, k-diff, serial": ours})
        for backend in BACKENDS:
            flags = ["--scale", "{}x{}".format(*SEEN), "--thresh", str(SCORE), "--backend", backend]
            rounds[-1][f"deface, {backend}"] = deface_job(people, len(people), python, flags, "blur")
        say(f"round {number + 1}: k-diff {ours['images_s']:.1f} images/s")
    return {"rounds": rounds, "images_s": rates(rounds), "ratios": ratios(rounds)}


def rates(rounds: Sequence[Mapping[str, Result]]) -> dict[str, float]:
    """The median images/s of every contender."""
    return {name: median(row[name]["images_s"] for row in rounds) for name in rounds[0]}


def ratios(rounds: Sequence[Mapping[str, Result]]) -> dict[str, tuple[float, float, float]]:
    """anonlib's images/s over those of deface's backend with the better median, and over the floor of its precision:
    the least, the median and the greatest of the rounds' ratios."""
    speeds = rates(rounds)
    best = max((name for name in speeds if name.startswith("deface,")), key=lambda name: speeds[name])
    ours = [name for name in speeds if name.startswith("anonlib")]
    keys = [(name, name, "images_s") for name in ours]
    keys += [(n.replace("Ray", "Ray already running"), n, "images_s_ray_running") for n in ours if "Ray" in n]
    found = {}
    for title, name, key in keys:
        others = (best, f"floor, {name.rpartition(', ')[2]}")
        for other in (other for other in others if other in speeds):
            each = sorted(row[name][key] / row[other]["images_s"] for row in rounds)
            found[f"{title} / {other}"] = (each[0], median(each), each[-1])
    return found


def floor(photos: Photos, many: int, precision: str) -> Result:
    """What all cores could do at best, in a process of its own (see `bare`)."""
    folder = fresh(ROOT / "work") / "photos"
    link(photos, many, folder)
    command = [sys.executable, __file__, "--floor", str(folder), precision]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {"images": many, "images_s": float(printed)}


def bare(files: Photos, precision: Any) -> float:
    """images/s of the detector's network and of decoding and encoding JPEGs, where there are faces, on all cores."""
    seen, (width, height) = (384, SEEN[0]), SEEN
    where = Placement("cpu", precision, CORES)
    engine = CenterFaceDetector.open(model_bytes("centerface"), side=max(SEEN), score=SCORE, where=where).engine

    def one(data: bytes) -> None:
        batch = np.zeros((1, 3, *seen), np.float32)
        small = simplejpeg.decode_jpeg(data, "RGB", min_height=height, min_width=width)
        batch[0, :, :height] = small.transpose(2, 0, 1)
        if engine(batch)[0].max() > SCORE:
            simplejpeg.encode_jpeg(simplejpeg.decode_jpeg(data, "RGB"), 92, colorsubsampling="420")

    contents = [file.read_bytes() for file in files]
    with ThreadPoolExecutor(CORES) as pool:
        list(pool.map(one, contents[: 4 * CORES]))
        began = time.monotonic()
        list(pool.map(one, contents))
        return len(contents) / (time.monotonic() - began)


def deface_job(photos: Photos, many: int, python: Path, flags: Sequence[str], how: str = "solid") -> Result:
    """deface over a folder, as a user starts it; it writes NAME_anonymized.jpg beside the photos."""
    folder = fresh(ROOT / "work") / "deface"
    link(photos, many, folder)
    ran = run_process([str(python.with_name("deface")), *flags, "--replacewith", how, str(folder)])
    if len(list(folder.glob("*_anonymized.jpg"))) != many:
        raise SystemExit("benchmark: deface left photos out; see .bench/last.log.")
    return {"images": many, "images_s": many / ran["seconds"], **ran}


def anonlib_job(
    photos: Photos, many: int, method: str, actors: int, precision: str = PRECISIONS[0], *, look: bool = False,
    gpus: float = 0,
) -> Result:  # fmt: skip
    """A whole job of anonlib in a process of its own; its places stay in .bench/work until the next."""
    work = fresh(ROOT / "work")
    pack(photos, many, work / "input")
    config = load_config(
        overrides={
            "input.uri": str(work / "input"),
            "output.uri": str(work / "release"),
            "workspace.uri": str(work / "workspace"),
            "method.name": method,
            "method.k": K,
            "detector.side": max(SEEN),
            "detector.score": SCORE,
            "precision": precision,
            "ray.actors": actors,
            "ray.num_gpus": gpus,
            "too_few": "ellipse",
        }
    )
    (work / "job.yaml").write_text(config.to_yaml())
    ran = run_process([sys.executable, "-m", "anonlib", "run", str(work / "job.yaml")], look)
    rounds = [
        line for line in (ROOT / "last.log").read_text().splitlines() if line.startswith("{") and '"round"' in line
    ]
    stages = Counter[str]()
    for line in map(json.loads, rounds):
        stages[line["stage"]] += line["seconds"]
    markers = [json.loads(path.read_text()) for path in (work / "release" / "commits").glob("*.json")]
    counts = {name: sum(marker[name] for marker in markers) for name in ("images", "faces", "released", "no_face")}
    if counts["released"] + counts["no_face"] != many:
        raise SystemExit(f"benchmark: anonlib left photos out: {counts}")
    result = counts | ran | {"stages": stages, "images_s": many / ran["seconds"]}
    if actors:
        started = subprocess.run([sys.executable, "-c", START], capture_output=True, text=True, check=True).stdout
        stages["start of Ray"] = float(started)
        result["images_s_ray_running"] = many / (ran["seconds"] - stages["start of Ray"])
    return result


# ---- the same faces -------------------------------------------------------------------------------------------


def equal_faces(photos: Photos, python: Path) -> dict[str, int]:
    """How many faces of the different photos deface finds, anonlib finds in each precision, and both."""
    import pyarrow.parquet as pq

    say("the same faces?")
    folder = fresh(ROOT / "work") / "photos"
    link(photos, len(photos), folder)
    command = [str(python), "-c", BOXES, str(folder), *map(str, (*SEEN, SCORE))]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    theirs: dict[str, list[Box]] = json.loads(printed.splitlines()[-1])
    counts = {"deface": sum(map(len, theirs.values()))}
    for precision in PRECISIONS:
        anonlib_job(photos, len(photos), "solid", 0, precision)
        ours = {
            row["key"]: [face["box"] for face in row["faces"]]
            for path in sorted((ROOT / "work" / "release" / "manifest").glob("*.parquet"))
            for row in pq.read_table(path, columns=["key", "faces"]).to_pylist()
        }
        counts[f"anonlib, {precision}"] = sum(map(len, ours.values()))
        counts[f"deface and anonlib, {precision}"] = in_both(ours, theirs)
    return counts


def in_both(ours: Mapping[str, Sequence[Box]], theirs: Mapping[str, Sequence[Box]]) -> int:
    """Faces (x0, y0, x1, y1, ...) that have a partner of at least SAME_FACE IoU in the same photo, each used once."""
    count = 0
    for key in ours.keys() & theirs.keys():
        a, b = (np.array([box[:4] for box in boxes[key]]).reshape(-1, 1, 4) for boxes in (ours, theirs))
        b = b.transpose(1, 0, 2)
        sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
        common = np.clip(sides, 0, None).prod(axis=2)
        areas = sum((boxes[..., 2:] - boxes[..., :2]).prod(axis=2) for boxes in (a, b))
        same = common >= SAME_FACE * (areas - common)
        count += int(same[linear_sum_assignment(same, maximize=True)].sum())
    return count


# ---- processes ------------------------------------------------------------------------------------------------


def deface_python(venv: Path) -> Path:
    """The Python of an environment with deface, which is made on first use by the user's own pip."""
    python = venv / "bin" / "python"
    if not (venv / "ready").exists():
        say(f"installing {', '.join(PACKAGES)} in {venv}")
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        (venv / "ready").touch()
    return python


def run_process(command: Sequence[str], look: bool = False) -> dict[str, float]:
    """Run to its end: wall `seconds`, and if it is to `look`, the `peak_pss_mib` of its tree. Raises if it fails."""
    peaks, over, log_file = [0.0], threading.Event(), ROOT / "last.log"
    with log_file.open("wb") as log:
        began = time.monotonic()
        process = subprocess.Popen(command, stdout=log, stderr=log)
        watcher = threading.Thread(target=watch_memory, args=(process.pid, peaks, over))
        if look:
            watcher.start()
        code = process.wait()
        seconds = time.monotonic() - began
        over.set()
        if look:
            watcher.join()
    if code != 0:
        tail = log_file.read_text(errors="replace")[-2000:]
        raise SystemExit(f"benchmark: {' '.join(command[:3])} ended with {code}:\n{tail}")
    return {"seconds": seconds} | ({"peak_pss_mib": max(peaks)} if look else {})


def watch_memory(pid: int, peaks: list[float], over: threading.Event) -> None:
    """Append to `peaks` what the tree of `pid` holds now and then, in MiB, until `over`.

    PSS: a shared page is divided among those that share it.
    """
    while not over.wait(LOOK_EVERY):
        held = 0
        with suppress(psutil.NoSuchProcess):
            for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
                with suppress(psutil.NoSuchProcess):
                    held += process.memory_full_info().pss
        peaks.append(held / 2**20)


def fresh(folder: Path) -> Path:
    """The folder, empty."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def say(what: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {what}", file=sys.stderr, flush=True)


# ---- the report -----------------------------------------------------------------------------------------------


def machine(python: Path) -> Result:
    """What this ran on, and how busy that was before it began."""
    listed = subprocess.run([str(python), "-m", "pip", "list", "--format=json"], capture_output=True, check=True).stdout
    named = {package["name"]: package["version"] for package in json.loads(listed)}
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": next(
            (line.partition(":")[2].strip() for line in lines if "model name" in line), platform.machine()
        ),
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
        "anonlib": {name: importlib.metadata.version(name) for name in VERSIONS},
        "deface": {name: named[name] for name in ("deface", "numpy", "opencv-python", "onnxruntime")},
    }


def report(result: Mapping[str, Any]) -> str:
    """The result as Markdown."""
    on, speeds, settings = (result[name] for name in ("machine", "speed", "settings"))
    last = speeds["rounds"][-1]
    jobs = {n: last[f"anonlib, {n}, {PRECISIONS[-1]}"] for n in ("Ray", "serial")}
    jobs["k-diff"] = result["k-diff"]["rounds"][-1]["anonlib, k-diff, serial"]
    stages = dict.fromkeys(stage for job in jobs.values() for stage in job["stages"])
    seconds = [(stage, *(f"{job['stages'].get(stage, 0):.2f}" for job in jobs.values())) for stage in stages]
    seconds += [("whole process", *(f"{job['seconds']:.2f}" for job in jobs.values()))]
    seconds += [("faces/s", *(f"{job['faces'] / job['seconds']:.1f}" for job in jobs.values()))]
    lines = [
        f"{on['cores']} cores ({on['processor']}), Python {on['python']}, load {on['load_before']:.1f} before the run",
        *(f"{side}: " + ", ".join(f"{k} {v}" for k, v in on[side].items()) for side in ("anonlib", "deface")),
        f"{settings['job']} photos a job ({DRAWN} different, {WIDTH}x{HEIGHT}), detectors at {max(SEEN)} px, {SCORE}, "
        f"{settings['rounds']} rounds\n",
    ]
    for head, rows in (
        *compared("solid", speeds),
        *compared(f"one photo in {FEW} has people", result["few faces"]),
        *compared("new faces, against a blur", result["k-diff"]),
        (("faces found", "count"), result["faces"].items()),
        (("seconds", *jobs), seconds),
        (("photos", "peak PSS MiB"), [(many, f"{ran['peak_pss_mib']:.0f}") for many, ran in result["memory"].items()]),
    ):
        rule = ["---", *["---:"] * (len(head) - 1)]
        lines += [f"| {' | '.join(map(str, row))} |" for row in (head, rule, *rows)] + [""]
    return "\n".join(lines)


def compared(title: str, speeds: Result) -> list[tuple[Sequence[str], list[Sequence[str]]]]:
    """Two tables, of images/s and of ratios."""
    images = [(name, f"{rate:.1f}") for name, rate in speeds["images_s"].items()]
    ratio = [(name, *(f"{value:.2f}" for value in each)) for name, each in speeds["ratios"].items()]
    return [((title, "images/s"), [*images]), (("ratio", "least", "median", "greatest"), [*ratio])]


if __name__ == "__main__":
    raise SystemExit(main())
