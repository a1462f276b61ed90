"""What releases are, pinned: jobs of every kind over the people of runs.py, and everything that must not change.

    python tests/support/oracle.py            compares with oracle.json; fails where this machine's digests are unknown
    python tests/support/oracle.py --write    writes e2e/oracle.json anew: only where releases are meant to change

Both run in the root of the repository. Of each run two things are kept:

    portable    statuses, reasons, fallbacks, boxes, sizes, pseudonyms, classes and thumbnails, compared everywhere: to
                1 px and 3 levels of grey. What another CPU's arithmetic may change is left out: `--write` runs
                everything once more with plainer kernels, and what differs there for one image `varies`.
    exact       digests of every file, manifest, marker, table and certificate, and the figures of an audit (to 1e-3),
                compared where the machine's `fingerprint` (of libraries and models, nothing of anonlib's) is known.

The fields in LEFT_OUT hold a version, or the digest of something that holds one. They are not pinned; `verify` holds
that they fit. Releases are read with pyarrow, json and tarfile. What is known of anonlib is in one section below.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))  # started as a script, python looks in tests/ alone

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageOps

from tests.support import photos
from tests.support.runs import Run, contents, job, run_job, started, write_people

ROOT = Path(__file__).parents[2]
FILE = ROOT / "tests" / "e2e" / "oracle.json"
LEFT_OUT = {
    "manifest": ("method_version",),
    "marker": ("run", "manifest_sha256"),
    "run.json": ("anonlib", "schema_version", "run"),
    "certificate.json": ("anonlib", "version", "run", "run_sha256", "merkle_root", "signature"),
}
"""Names of fields that are not pinned, by what they are of; a manifest's is a field of its faces."""
BOX_PX, GREY, FIGURE = 1, 3, 1e-3
PUBLIC_KEY = "1f50dbcfe85dd48b5514728651388ec4cb89f6fcebb2e651111beb8dcca66d73"
"""Of the secret of runs.py."""
_FACE, _PICTURE = 8, 6
_PLAINER = {
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "OV_CPU_MAX_ISA": "AVX2",
    "OPENBLAS_CORETYPE": "Haswell",
    "NPY_DISABLE_CPU_FEATURES": "AVX512F AVX512_SKX",
}
"""Environment of a process that computes as another CPU would."""

Document = dict[str, Any]

# --- What this knows of anonlib -----------------------------------------------------------------------------------

ACCEPTED = ["embedding", "ksame-net"]
STILL_RECOGNIZED = "people can still recognize these faces"
SUBJECTS = ("subject_id", "person_id", "formed_by", "faces", "stratum", "class_id")
CLASSES = ("class_id", "members", "effective_k", "stratum", "surrogate")
"""Columns of the workspace's tables that are looked at."""


def model_files() -> dict[str, bytes]:
    """The ready ONNX of every model, by name."""
    from anonlib.models.cache import model_bytes
    from anonlib.models.catalog import MODELS

    return {name: model_bytes(name) for name in sorted(MODELS)}


def verified(output: Path) -> None:
    """Raises where a field that is left out is not of this release, or the signature not of the secret of runs.py."""
    from anonlib.storage import open_storage
    from anonlib.verification.release import verify

    verify(open_storage(str(output)), PUBLIC_KEY)


def audited(run: Run) -> list[Document]:
    """The attacks of an audit that train nothing, and those on what a release says beside its pictures."""
    from anonlib.audit.attacks.base import Material
    from anonlib.audit.attacks.pictures import attack_pictures
    from anonlib.audit.attacks.records import attack_records
    from anonlib.audit.evidence.gather import gather
    from anonlib.audit.evidence.published import read_published
    from anonlib.audit.gate import disclosure_lines
    from anonlib.job import Job
    from anonlib.methods import method_of

    job, used = Job(run.config), method_of(run.config.method).recognizers_used()
    material = Material(gather(job), read_published(job), used)
    disclosures = attack_records(material)
    lines = disclosure_lines(run.config.policy, disclosures)
    attacks = [attack.model_dump(mode="json") for attack in attack_pictures(material)]
    for attack in attacks:  # groups in the order in which they are told
        attack["groups"] = [figure for part in attack["groups"].values() for figure in part.values()]
    thresholds = [{"recognizer": one.recognizer, "cosine": one.threshold} for one in material.attackers]
    return [*attacks, *thresholds, *(one.model_dump(mode="json") for one in (*disclosures, *lines))]


def planned(run: Run) -> Document:
    """Who is whom, and who is in a class with whom, as the workspace has it."""
    return {
        name: [
            {column: row[column] for column in columns}
            for path in sorted(run.workspace.glob(f"plan/*/{name}.parquet"))
            for row in pq.read_table(path).to_pylist()
        ]
        for name, columns in (("subjects", SUBJECTS), ("classes", CLASSES))
    }


# --- The runs -----------------------------------------------------------------------------------------------------


def all_runs(root: Path) -> Iterator[tuple[str, Run]]:
    """Every run, by name, as soon as it is over."""
    tars = write_people(_made(root / "tars"))
    few = _made(root / "few")
    shutil.copy(tars / "00000.tar", few)
    samples = list(_samples(few / "00000.tar"))
    table, folder = as_parquet(samples, _made(root / "table")), as_folder(samples, _made(root / "folder"))

    scanned = dict[Path, Path]()  # a scan that another method continues from, as a rerun does

    def run(name: str, source: Path, method: Mapping[str, Any], **changes: Any) -> tuple[str, Run]:
        place = root / "runs" / name
        if source in scanned:
            shutil.copytree(scanned[source], place / "workspace" / "scan", dirs_exist_ok=True)
        made = run_job(source, place, method=dict(method), accept_licences=ACCEPTED, precision="f32", **changes)
        scanned.setdefault(source, made.workspace / "scan")
        return name, made

    net = {"texture": "ksame-net"}
    embedding = {"name": "embedding", "accept": STILL_RECOGNIZED, "own_angle": 40}
    k_diff = {"name": "k-diff", "k": 2, "texture": "average"}
    yield run("k-diff", tars, k_diff)
    yield run("k-diff gallery", few, {"name": "k-diff", "k": 2})
    yield run("dp-subset", few, {"name": "dp-subset", "epsilon": 4, "near": 3})
    yield run("k-same", tars, {"name": "k-same", "k": 2})
    yield run("dp-uniform", few, {"name": "dp-uniform"})
    yield run("dp-laplace", few, {"name": "dp-laplace", "epsilon": 20, **net})
    yield run("sampling", few, {"name": "sampling", **net})
    yield run("surrogate", few, {"name": "surrogate", "k": 2, **net})
    yield run("embedding", few, embedding)
    yield run("blur", few, {"name": "blur"})
    yield run("pixelate", few, {"name": "pixelate"})
    labelled = {"subject_field": "person"}
    yield run("k-diff parquet", table, k_diff, input={"uri": str(table), "key_field": "id", **labelled})
    yield run("k-diff folder", folder, k_diff, input={"uri": str(folder), **labelled})
    yield run("odd", odd_tar(root / "odd"), {"name": "solid"})


def on_ray(serial: Run, root: Path) -> Path:
    """The release of the same job by two actors on two shards each, in small chunks."""
    how = {"ray": {"actors": 2, "shards": 2}, "limits": {"chunk": 5, "memory_mib": 4}, "precision": "f32"}
    config = job(serial.input, root, **how, accept_licences=ACCEPTED)
    with started(config, root / "process") as run:
        assert run.finish() == 0, run.complaints
    return root / "release"


def as_parquet(samples: Iterable[tuple[str, bytes, Document]], folder: Path) -> Path:
    rows = []
    for key, data, said in samples:
        texts = {"caption": said["caption"], "person": said.get("person")}
        rows.append({"id": key, "image": {"bytes": data, "path": f"{key}.jpg"}, **texts})
    pq.write_table(pa.Table.from_pylist(rows), folder / "people.parquet", row_group_size=4)
    return folder


def as_folder(samples: Iterable[tuple[str, bytes, Document]], folder: Path) -> Path:
    for key, data, said in samples:
        (folder / f"{key}.jpg").write_bytes(data)
        (folder / f"{key}.json").write_text(json.dumps(said))
    return folder


def odd_tar(folder: Path) -> Path:
    """Every kind of file that a job treats in a way of its own: other formats, metadata, and what it cannot read."""
    (_, face), *_ = photos.people(1, 1)
    data, grey = photos.jpeg(face), np.asarray(Image.fromarray(face).convert("L"))
    clear = np.dstack([face, np.full(face.shape[:2], 255, np.uint8)])
    turned = Image.Exif()
    turned[0x0112] = 6
    content = {
        "alpha.png": photos.encoded(clear, "PNG"),
        "broken.jpg": b"broken",
        "comment.jpg": photos.with_segments(data, photos.jpeg_segment(0xFE, b"Ada Quill")),
        "cut.jpg": data[: len(data) // 2],
        "grey.jpg": photos.jpeg(grey),
        "huge.png": photos.png_header(100_000, 100_000),
        "turned.jpg": photos.jpeg(np.rot90(face).copy(), exif=turned.tobytes()),
        "web.webp": photos.encoded(face, "WEBP", lossless=True),
    }
    photos.tar(folder / "odd.tar", content.items())
    return folder


def _samples(tar: Path) -> Iterator[tuple[str, bytes, Document]]:
    content = photos.content_of(tar)
    for name, data in content.items():
        key, _, extension = name.partition(".")
        if extension == "jpg":
            yield key, data, json.loads(content[f"{key}.json"])


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


# --- What is kept of a run ----------------------------------------------------------------------------------------


def collect(root: Path, *, runs_alone: bool = False) -> Document:
    """{"fingerprint", "portable": by run, "exact": by run, and the audit's figures}; `runs_alone`: no Ray, no audit."""
    portable, exact = dict[str, Any](), dict[str, Any]()
    for name, run in all_runs(root):
        verified(run.output)
        portable[name] = portable_of(run)
        exact[name] = exact_of(run) | {"portable": _digest(portable[name])}
        if name == "k-diff" and not runs_alone:
            ray = on_ray(run, root / "ray")
            assert contents(ray) == contents(run.output), "two actors on Ray made another release than a serial run"
            exact["audit"] = _figures(audited(run))
    exact["input"] = {path.name: _sha(path.read_bytes()) for path in sorted((root / "tars").iterdir())}
    return {"fingerprint": fingerprint(), "portable": portable, "exact": exact}


def portable_of(run: Run) -> Document:
    """What any machine must find, up to BOX_PX and GREY. Digests of surrogates are numbered as they come."""
    blobs, worn = {_sha(data): data for data in _blobs(run.output)}, dict[str, int]()
    images = {}
    for row in _manifest(run.output):
        image = {
            "is": [row["status"], row["reason"], row["format"], row["height"], row["width"], row["review"]],
            "told": [*(row["metadata_stripped"] or ()), *(row["notes"] or ())],
        }
        pixels = None
        if row["output_sha256"]:
            pixels = Image.open(io.BytesIO(blobs[row["output_sha256"]])).convert("L")
            assert (row["width"], row["height"]) == ImageOps.exif_transpose(pixels).size
            image["thumb"] = _thumb(pixels, _PICTURE)
        image["faces"] = [
            {
                "box": face["box"],
                "is": [face["method"], face["k"], face["epsilon"], face["detected_again"], face["fallback"]],
                "wears": worn.setdefault(face["surrogate_digest"], len(worn)) if face["surrogate_digest"] else None,
            }
            | ({} if pixels is None else {"thumb": _thumb(pixels.crop(face["box"]), _FACE)})
            for face in row["faces"]
        ]
        images[row["key"]] = {name: value for name, value in image.items() if value != []}
    certificate = json.loads((run.output / "certificate.json").read_bytes())
    told = {name: certificate[name] for name in ("claim", "counts", "scope")}
    tables = {one["path"]: one["rows"] for one in certificate["tables"]}
    return {"images": images, "certificate": told, "tables": tables, "plan": _members(planned(run))}


def _members(plan: Document) -> Document:
    """The plan, short: subject -> how it was formed, of what, in which class; class -> who is in it."""
    subjects, classes = {}, {}
    for row in plan["subjects"]:
        person = None if row["person_id"] == row["subject_id"] else row["person_id"]
        stratum, faces = ", ".join(row["stratum"] or ()), " ".join(row["faces"])
        subjects[row["subject_id"]] = [row["formed_by"], person, stratum, row["class_id"], faces]
    for row in plan["classes"]:
        classes[row["class_id"]] = [row["effective_k"], row["surrogate"], " ".join(row["members"])]
    return {"subjects": subjects, "classes": classes}


def exact_of(run: Run) -> Document:
    """Digests of everything in a release, less LEFT_OUT. Files have their sha256, documents the start of theirs."""
    output = run.output
    files = {path: digest for path, digest in contents(output).items() if path.startswith("data/")}
    notes = {name: json.loads((output / name).read_bytes()) for name in ("run.json", "certificate.json")}
    manifests = {}
    for path in sorted((output / "manifest").iterdir()):
        table = pq.read_table(path)
        rows = [
            row | {"faces": [_less(face, LEFT_OUT["manifest"]) for face in row["faces"]]} for row in table.to_pylist()
        ]
        manifests[path.stem] = _digest([str(table.schema), pq.ParquetFile(path).num_row_groups, rows])
    markers = {
        path.stem: _digest(_less(json.loads(path.read_bytes()), LEFT_OUT["marker"]))
        for path in sorted((output / "commits").iterdir())
    }
    return {
        "files": files,
        "images": " ".join((row["output_sha256"] or "-")[:8] for row in _manifest(output)),
        "manifest": manifests,
        "markers": markers,
        "tables": {path.name: _sha(path.read_bytes()) for path in sorted(output.glob("*.parquet"))},
        "paths": _digest(sorted(contents(output))),
        "plan": _digest(planned(run)),
        **{name: _digest(_less(note, LEFT_OUT[name])) for name, note in notes.items()},
    }


def _manifest(output: Path) -> list[Document]:
    return [row for path in sorted((output / "manifest").iterdir()) for row in pq.read_table(path).to_pylist()]


def _blobs(output: Path) -> Iterator[bytes]:
    """Whatever may be a picture in a release: members of tars, cells of tables, files."""
    for path in sorted((output / "data").rglob("*")):
        if path.suffix == ".tar":
            with tarfile.open(path) as archive:
                yield from (file.read() for info in archive if (file := archive.extractfile(info)))
        elif path.suffix == ".parquet":
            for row in pq.read_table(path).to_pylist():
                for cell in row.values():
                    data = cell.get("bytes") if isinstance(cell, dict) else cell
                    if isinstance(data, bytes):
                        yield data
        elif path.is_file():
            yield path.read_bytes()


def _thumb(pixels: Image.Image, side: int) -> str:
    """Luminance of side x side boxes, a byte each, in base85."""
    return base64.b85encode(pixels.resize((side, side), Image.Resampling.BOX).tobytes()).decode()


def _figures(found: list[Document]) -> dict[str, str]:
    """Name of a finding -> its figures as they were counted, in an order of its own; text is left out."""
    told = dict[str, str]()
    for number, one in enumerate(found):
        name = " ".join(str(one[part]) for part in ("name", "target", "recognizer") if one.get(part))
        numbers = [f"{value:.4g}" for value in _numbers(one)]
        told[f"{number:03d} {name}"] = " ".join(numbers)
    return told


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, int | float):
        yield float(value) if isinstance(value, bool) else value
    elif isinstance(value, dict | list):
        for inner in value if isinstance(value, list) else (value[name] for name in sorted(value)):
            yield from _numbers(inner)


# --- How this machine computes ------------------------------------------------------------------------------------


def fingerprint() -> str:
    """16 hex digits: what the models answer on fixed numbers, and what the libraries make of fixed pixels."""
    import cv2
    import simplejpeg

    made = hashlib.sha256()
    for data in model_files().values():
        for answer in _answers(data):
            made.update(np.ascontiguousarray(answer).tobytes())
    pixels = _noise((96, 96, 3)).astype(np.uint8)
    turned = cv2.warpAffine(pixels, np.float32([[0.8, 0.3, 4], [-0.3, 0.8, 9]]), (80, 80), flags=cv2.INTER_LINEAR)
    numbers = _noise((200, 200)).astype(np.float32) / 255
    for array in (turned, cv2.GaussianBlur(numbers, (0, 0), 2), numbers @ numbers, np.exp(numbers)):
        made.update(np.ascontiguousarray(array).tobytes())
    made.update(np.linalg.svd(numbers.astype(np.float64))[1].tobytes())
    made.update(simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=92))
    made.update(photos.jpeg(pixels) + photos.encoded(pixels, "PNG") + photos.encoded(pixels, "WEBP", lossless=True))
    sink = io.BytesIO()
    pq.write_table(pa.table({"n": numbers.ravel()}), sink, compression="zstd")
    made.update(sink.getvalue())
    return made.hexdigest()[:16]


def _answers(model: bytes) -> list[np.ndarray]:
    """A model's raw outputs, by OpenVINO as the package has it compute: one thread, single precision."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    core = openvino.Core()
    graph = core.read_model(model)
    shape = [1] + [side.get_length() if side.is_static else 256 for side in list(graph.input(0).partial_shape)[1:]]
    how = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": "1", "INFERENCE_NUM_THREADS": "1"}
    asked = core.compile_model(graph, "CPU", how)
    return [np.array(one) for one in asked([_noise(tuple(shape)).astype(np.float32) / 255]).values()]


def _noise(shape: tuple[int, ...]) -> np.ndarray:
    """Fixed whole numbers below 256: waves, so that a picture of them is not all noise."""
    count = np.arange(int(np.prod(shape)), dtype=np.int64)
    return ((count * 2_654_435_761 >> 16) % 64 + (count // 7) % 192).reshape(shape)


# --- Comparing ----------------------------------------------------------------------------------------------------


def differences(want: Any, got: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """(path, what differs) of two portable parts."""
    name = path.rpartition("/")[2]
    if isinstance(want, dict) and isinstance(got, dict):
        for key in sorted(want.keys() | got.keys()):
            if key not in want or key not in got:
                yield f"{path}/{key}", "is missing" if key in want else "is new"
            else:
                yield from differences(want[key], got[key], f"{path}/{key}")
    elif name == "box" and len(want) == len(got):
        if max(abs(a - b) for a, b in zip(want, got, strict=True)) > BOX_PX:
            yield path, f"{want} became {got}"
    elif name == "thumb" and len(want) == len(got):
        first, second = (np.frombuffer(base64.b85decode(one), np.uint8).astype(int) for one in (want, got))
        if (away := int(abs(first - second).max())) > GREY:
            yield path, f"differs by {away} grey levels"
    elif name == "faces" and isinstance(want, list) and len(want) == len(got):
        for number, (one, other) in enumerate(zip(want, got, strict=True)):
            yield from differences(one, other, f"{path}/{number}")
    elif want != got:
        yield path, f"{want} became {got}"


def wrong_portable(known: Document, found: Document) -> list[str]:
    """What this machine found otherwise than any machine must."""
    got = _without(found["portable"], known["varies"])
    return [f"{path} {what}" for path, what in differences(known["portable"], got)]


def _of_all(path: str) -> str:
    """The path with a star in the place of an image's key and a face's number."""
    parts = path.split("/")
    return "/".join(
        "*" if before in ("images", "faces") else part for before, part in zip(["", *parts], parts, strict=False)
    )


def _without(value: Any, varies: Iterable[str], path: str = "") -> Any:
    """A portable part without what varies."""
    if isinstance(value, dict):
        kept = {key: one for key, one in value.items() if _of_all(f"{path}/{key}") not in varies}
        return {key: _without(one, varies, f"{path}/{key}") for key, one in kept.items()}
    if isinstance(value, list) and path.endswith("/faces"):
        return [_without(one, varies, f"{path}/{number}") for number, one in enumerate(value)]
    return value


def wrong_exact(known: Document, found: Document) -> list[str] | None:
    """What this machine found otherwise than a machine that computes as it does; None: there is none in the file."""
    want = known["exact"].get(found["fingerprint"])
    if want is None:
        return None
    got = found["exact"]
    wrong = [f"{path} {what}" for path, what in differences(_less(want, ("audit",)), _less(got, ("audit",)))]
    for name in sorted(want["audit"].keys() | got["audit"].keys()):
        first, second = ([float(one) for one in part["audit"].get(name, "").split()] for part in (want, got))
        if len(first) != len(second) or not np.allclose(first, second, rtol=FIGURE, atol=FIGURE):
            wrong.append(f"audit/{name}: {first} became {second}")
    return wrong


def _less(document: Mapping[str, Any], names: Iterable[str]) -> Document:
    """The document without these of its fields, each of which it must have."""
    assert set(names) <= set(document), f"{sorted(set(names) - set(document))} are gone: LEFT_OUT names them"
    return {name: value for name, value in document.items() if name not in names}


def _canonical(document: Any) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _digest(document: Any) -> str:
    """16 hex digits of a document's sha256."""
    return _sha(_canonical(document))[:16]


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# --- The command --------------------------------------------------------------------------------------------------


def load() -> Document:
    return json.loads(FILE.read_text())


def dump(document: Document) -> str:
    """The file, in lines of a few hundred characters: an image each, so that a change of it can be read."""

    def lines(value: Any, depth: int) -> str:
        line = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        if not isinstance(value, dict | list) or not value or depth == 0 or len(line) < 100:
            return line
        if isinstance(value, dict):
            return "{\n" + ",\n".join(f"{json.dumps(key)}:{lines(one, depth - 1)}" for key, one in value.items()) + "}"
        return "[\n" + ",\n".join(lines(one, depth - 1) for one in value) + "]"

    return lines(document, 5) + "\n"


def _write(found: Document) -> None:
    """The file anew; what comes out otherwise in a process that computes as another CPU would varies."""
    command, plainer = [sys.executable, __file__, "--collect"], os.environ | _PLAINER
    other = subprocess.run(command, cwd=ROOT, env=plainer, stdout=subprocess.PIPE, text=True, check=True)
    elsewhere = json.loads(other.stdout.splitlines()[-1])
    if elsewhere["fingerprint"] == found["fingerprint"]:
        print("plainer kernels compute the same here: `varies` holds what was known before", file=sys.stderr)
        varies = load()["varies"] if FILE.exists() else []
    else:
        varies = sorted({_of_all(path) for path, _ in differences(found["portable"], elsewhere["portable"])})
    portable, exact = _without(found["portable"], varies), {found["fingerprint"]: found["exact"]}
    FILE.write_text(dump({"varies": varies, "portable": portable, "exact": exact}))


def main(arguments: list[str]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        found = collect(Path(folder), runs_alone=arguments == ["--collect"])
    if arguments == ["--collect"]:
        print(json.dumps(found))
        return 0
    if arguments == ["--write"]:
        _write(found)
        return 0
    known = load()
    exact = wrong_exact(known, found)
    wrong = wrong_portable(known, found) + (exact or [])
    if exact is None:
        wrong.append(f"no digests are known for machines that compute as this one does ({found['fingerprint']})")
    print("\n".join(wrong) or f"{len(found['portable'])} runs are as they were ({found['fingerprint']})")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
