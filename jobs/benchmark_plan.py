"""What a plan costs, whole and in cells, and what cells change: `python jobs/benchmark_plan.py FOLDER`.

The scan is drawn (`--faces`: people who never lived, as dlib would embed them) or a finished one (`--scan WORKSPACE`,
which is only read, its labels left out so that they can judge). Every plan runs in a process of its own, serially:
CPU seconds of each step, and the most memory that the process and each of its steps came to. Who is who is compared
with the labels and with the whole plan; classes by how alike their donors are, and by how many faces are redacted.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from benchmark_privacy import bcubed, drawn_faces, person_of_each
from numpy.typing import NDArray

from anonlib.config import JobConfig
from anonlib.datasets import Shard
from anonlib.pipeline.cells.making import CellPlan
from anonlib.pipeline.desk import MakeStage
from anonlib.pipeline.places import json_bytes, open_places, plan_room
from anonlib.pipeline.plan import PlanStage, subjects_of
from anonlib.pipeline.runner import SerialRunner
from anonlib.pipeline.secret import open_keyring
from anonlib.pipeline.unit_log import Work
from anonlib.privacy.subjects import normalized
from anonlib.records import CLASSES, FACES

CELLS = (1, 4, 8)
A_SHARD = 1000  # faces
PHOTOS = 5  # of a person, on average
DECAY = 1.2  # see benchmark_privacy
K = 5
SEED = 7
SCAN = "0123456789abcdef" * 4
CROP = 6500  # bytes


def main() -> int:
    """Draw or link the scan, plan it by every number of cells, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--faces", type=int, default=100_000)
    parser.add_argument("--light", action="store_true", help="no crops and one mesh, to spare the disk")
    parser.add_argument("--scan", type=Path)
    parser.add_argument("--cells", type=int, nargs="+", default=CELLS)
    parser.add_argument("--method", default="k-diff", choices=("k-diff", "k-same"))
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one is not None:
        print(json.dumps(one_plan(asked.folder, asked.one, asked.method)))
        return 0
    if not (asked.folder / "people.parquet").exists():
        copied_scan(asked.folder, asked.scan) if asked.scan else drawn_scan(asked.folder, asked.faces, asked.light)
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before the run, k = {K}\n")
    plans = [in_its_own_process(asked, cells) for cells in asked.cells]
    print("\n".join(table(plans)))
    return 0


def in_its_own_process(asked: argparse.Namespace, cells: int) -> dict[str, Any]:
    shutil.rmtree(asked.folder / f"workspace/plan/{key(cells)[:16]}", ignore_errors=True)
    command = [sys.executable, str(Path(__file__).resolve()), str(asked.folder), "--one", str(cells)]
    done = subprocess.run([*command, "--method", asked.method], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"benchmark_plan: {cells} cells failed:\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found | judged(asked.folder, cells, asked.cells[0])


def one_plan(folder: Path, cells: int, method: str) -> dict[str, Any]:
    """CPU seconds and peak MiB of each step."""
    (folder / "secret").write_text("a secret for benchmarks only")
    job = JobConfig.model_validate(
        {
            "input": {"uri": "/nowhere"},
            "output": {"uri": str(folder / "release")},
            "workspace": {"uri": str(folder / "workspace")},
            "method": {"name": method, "k": K},
            "secret": {"file": str(folder / "secret")},
            "plan": {"cells": cells},
        }
    )
    places, steps = open_places(job), {}
    keyring = open_keyring(job, places, make=True)
    shards = sorted(path.stem for path in (folder / f"workspace/scan/{SCAN[:16]}/faces").glob("*.parquet"))
    began, cpu = time.perf_counter(), time.process_time()

    def rounds(make: MakeStage[str], units: Sequence[str], done: Callable[[], set[str]]) -> None:
        before = time.process_time()
        for outcome in SerialRunner().run(make, units, Work("plan", key(cells), 1, method)):
            if outcome.error:
                raise SystemExit(f"{outcome.unit}: {outcome.error}")
        steps[units[0].partition("/")[0]] = time.process_time() - before, peak()

    if cells > 1:
        plan = CellPlan(job, places, SCAN, key(cells), {}, keyring.check(), cells, rounds).run(shards)
    else:
        whole = [Shard(shard, "", "", 0, "webdataset") for shard in shards]
        plan = PlanStage(job, places, keyring, SCAN, key(cells), {}).run(whole)
    return {
        "cells": cells,
        "steps": steps,
        "wall": time.perf_counter() - began,
        "cpu": time.process_time() - cpu,
        "peak": peak(),
        "classes": plan.classes,
        "redacted": plan.redacted,
    }


def peak() -> float:
    """MiB that this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def key(cells: int) -> str:
    """The plan's room."""
    return f"{cells:04d}" * 16


# ---- how good it is -------------------------------------------------------------------------------------------


def judged(folder: Path, cells: int, reference: int) -> dict[str, Any]:
    """Subjects against people and against the reference plan, and how alike the donors of a class are."""
    known = pq.read_table(folder / "people.parquet").to_pydict()
    person = np.array(known["person"])
    mine, whole = (subject_of(folder, one, known["face_id"]) for one in (cells, reference))
    named = person >= 0
    truth, same = bcubed(mine[named], person[named]), bcubed(mine, whole)
    places = JobConfig.model_validate(
        {
            "input": {"uri": "/nowhere"},
            "output": {"uri": str(folder / "r")},
            "workspace": {"uri": str(folder / "workspace")},
        }
    )
    room = plan_room(open_places(places), key(cells))
    subjects = subjects_of(room, ["subject_id", "template"])
    template = np.stack(subjects.column("template").to_numpy())
    row = {one: number for number, one in enumerate(subjects.column("subject_id").to_pylist())}
    alike, effective = [], []
    for entry in room.storage.list(room.path("classes", "")):
        for one in pq.read_table(folder / "workspace" / entry.path, schema=CLASSES).to_pylist():
            donors = template[[row[donor] for donor in one["donors"]]]
            alike.append(float((donors @ normalized(donors.mean(axis=0, keepdims=True)).T).mean()))
            effective.append(one["effective_k"])
    return {
        "subjects": subjects.num_rows,
        "faces": len(person),
        "truth": truth,
        "same": same,
        "alike": float(np.mean(alike)) if alike else float("nan"),
        "least": min(effective, default=0),
    }


def subject_of(folder: Path, cells: int, face_ids: Sequence[str]) -> NDArray[np.int64]:
    """The subject number of each face."""
    files = sorted((folder / f"workspace/plan/{key(cells)[:16]}").glob("subjects*/**/*.parquet"))
    files = files or [folder / f"workspace/plan/{key(cells)[:16]}/subjects.parquet"]
    faces = [one for path in files for one in pq.read_table(path, columns=["faces"]).column("faces").to_pylist()]
    of = {face: number for number, mine in enumerate(faces) for face in mine}
    return np.array([of[face] for face in face_ids])


def table(plans: Sequence[dict[str, Any]]) -> list[str]:
    """Markdown, a column for each plan."""
    rows: list[tuple[str, Callable[[dict[str, Any]], str]]] = [
        ("CPU s (wall)", lambda one: f"{one['cpu']:.0f} ({one['wall']:.0f})"),
        ("peak RSS, MiB", lambda one: f"{one['peak']:.0f}"),
        ("subjects", lambda one: f"{one['subjects']:,}"),
        ("BCubed precision, people", lambda one: f"{one['truth']['precision']:.4f}"),
        ("BCubed recall, people", lambda one: f"{one['truth']['recall']:.4f}"),
        ("subjects of several people", lambda one: f"{one['truth']['merged']:,}"),
        ("people in several subjects", lambda one: f"{one['truth']['split']:,}"),
        ("subjects of several of the first plan's", lambda one: f"{one['same']['merged']:,}"),
        ("the first plan's in several subjects", lambda one: f"{one['same']['split']:,}"),
        ("classes", lambda one: f"{one['classes']:,}"),
        ("least effective k", lambda one: f"{one['least']}"),
        ("cosine of donors to their class", lambda one: f"{one['alike']:.4f}"),
        ("faces redacted", lambda one: f"{one['redacted'] / one['faces']:.2%}"),
    ]
    lines = ["| | " + " | ".join(f"{one['cells']} cells" for one in plans) + " |", "|---|" + "---:|" * len(plans)]
    lines += [f"| {name} | " + " | ".join(map(form, plans)) + " |" for name, form in rows]
    for one in plans:
        steps = [f"{step} {cpu:.1f} s {most:.0f} MiB" for step, (cpu, most) in one["steps"].items()]
        lines += ["", f"{one['cells']} cells: " + ", ".join(steps)] if steps else []
    return lines


# ---- scans ----------------------------------------------------------------------------------------------------


def drawn_scan(folder: Path, count: int, light: bool) -> None:
    """A scan of drawn faces in random order; six of ten may be averaged."""
    rng = np.random.default_rng(SEED)
    person = person_of_each(count, PHOTOS)
    embedding = drawn_faces(person, DECAY)
    people = int(person[-1]) + 1
    female = rng.choice([0.05, 0.95, 0.5], p=(0.45, 0.45, 0.1), size=people)
    age = rng.uniform(18, 70, people)
    order = rng.permutation(count)
    ids: list[str] = []
    for number, rows in enumerate(np.array_split(order, -(-count // A_SHARD))):
        shard, many = f"drawn-{number:06d}", len(rows)
        mesh = rng.normal(200, 30, size=(1 if light else many, 1404))
        given = {
            "face_id": [f"{shard}/photo-{row:09d}#0" for row in rows],
            "key": [f"photo-{row:09d}" for row in rows],
            "embedding": fixed(embedding[rows]),
            "mesh": fixed(np.broadcast_to(mesh, (many, 1404))),
            "landmarks": fixed(np.tile([0.0, 0, 60, 0, 30, 30, 10, 50, 50, 50], (many, 1))),
            "crop": [b"" if light else rng.bytes(CROP) for _ in rows],
            "female": female[person[rows]],
            "age": age[person[rows]],
            "yaw": rng.normal(0, 15, many),
            "pitch": rng.normal(0, 10, many),
            "sharpness": rng.uniform(9, 40, many),
            "clarity": rng.uniform(0.55, 1, many),
            "glasses": np.where(rng.random(many) < 0.6, -1.0, 1.0),
            "presence": np.ones(many),
        }
        ids += given["face_id"]
        columns = [as_column(given.get(field.name), field, many) for field in FACES]
        write_shard(folder, shard, pa.table(columns, schema=FACES))
    save_people(folder, ids, person[order])


def copied_scan(folder: Path, workspace: Path) -> None:
    """A finished scan without its labels, which are kept beside it."""
    labels: list[str | None] = []
    ids: list[str] = []
    for path in sorted(workspace.glob("scan/*/faces/*.parquet")):
        faces = pq.read_table(path)
        if faces.column("embedding").null_count:
            continue  # a scan for redactions, which describes no face
        labels += faces.column("label").to_pylist()
        ids += faces.column("face_id").to_pylist()
        unnamed = pa.nulls(faces.num_rows, pa.string())
        write_shard(folder, path.stem, faces.set_column(FACES.names.index("label"), "label", unnamed))
    number = {label: row for row, label in enumerate(sorted({one for one in labels if one}))}
    save_people(folder, ids, np.array([number.get(one or "", -1) for one in labels]))


def write_shard(folder: Path, shard: str, faces: pa.Table) -> None:
    room = folder / f"workspace/scan/{SCAN[:16]}"
    for name in ("faces", "commits"):
        (room / name).mkdir(parents=True, exist_ok=True)
    pq.write_table(faces, room / f"faces/{shard}.parquet", compression="zstd", row_group_size=256)
    (room / f"commits/{shard}.json").write_bytes(json_bytes({"shard": shard, "faces": faces.num_rows}))


def save_people(folder: Path, ids: Sequence[str], person: NDArray[np.int64]) -> None:
    pq.write_table(pa.table({"face_id": list(ids), "person": person}), folder / "people.parquet")


def fixed(rows: NDArray[Any]) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.astype(np.float32).ravel()), rows.shape[1])


def as_column(given: Any, field: pa.Field, many: int) -> pa.Array:
    if given is None and pa.types.is_fixed_size_list(field.type):
        return fixed(np.zeros((many, field.type.list_size)))
    if given is None:
        return pa.nulls(many, field.type) if field.type == pa.string() else pa.array(np.zeros(many)).cast(field.type)
    return given.cast(field.type) if isinstance(given, pa.Array) else pa.array(given).cast(field.type)


if __name__ == "__main__":
    raise SystemExit(main())
