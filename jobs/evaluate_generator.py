"""What a generator of faces is worth: `python jobs/evaluate_generator.py FOLDER --workspace SCANNED --source ...`.

Paints the faces of labelled people into photos of others, by every source that is named, on the same photos, and has
them judged: is it the identity that was asked for, is the person of the photo still found, is it a face, of that
gender and age, in that expression and shape, and like real ones. `clear`, the photos as they are, is always measured
too, as the yardstick. Writes figures and pages to look at into FOLDER; both rest on photos of the dataset and are as
restricted. Needs the models of the evaluation set (`anonlib models pull --set evaluation`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from anonlib.audit.findings import Figure
from anonlib.config import InputConfig, JobConfig, OutputConfig, RayConfig, WorkspaceConfig
from anonlib.datasets import open_dataset
from anonlib.errors import JobError
from anonlib.execution.telemetry import Progress, open_progress
from anonlib.job import Job
from anonlib.storage import open_storage
from anonlib.storage.local import LocalStorage
from anonlib.terminal import guarded, print_rows
from anonlib.training.data import learned_vectors
from anonlib.training.evaluate.evaluation import FRONTAL, REALISM, STANDING, Evaluation, Judges, Measured
from anonlib.training.evaluate.pages import compared, control
from anonlib.training.evaluate.participants import (
    COLUMNS,
    Participants,
    assemble,
    learned_from,
    scan_faces,
    scanned_dataset,
    usable,
)
from anonlib.training.evaluate.sources import CLEAR, DecodedSource, open_sources, painted, read_decoder
from anonlib.workspace.layout import json_bytes

FIGURES = "generator.json"
STRANGERS = 1000
"""Real faces of other people, at most, that painted faces are held against."""
TIMED = 40
"""Faces whose time is taken, at most."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def evaluate(
    folder: Annotated[Path, typer.Argument(help="Where figures and pages go; not into a release.")],
    source: Annotated[
        list[str],
        typer.Option(
            help="average, linear:FILE, bank:FILE, ksame-net[:FILE], embedding, pixelate, blur, solid; repeat it."
        ),
    ],
    workspace: Annotated[str | None, typer.Option(help="Folder or S3 URI of a finished scan; it is only read.")] = None,
    input: Annotated[str | None, typer.Option(help="The dataset, if not the one that the workspace names.")] = None,
    subject_field: Annotated[
        str, typer.Option(help="The field that names the person, where a scan is made.")
    ] = "person",
    scan: Annotated[str | None, typer.Option(help="Which scan, where the workspace has several.")] = None,
    trained_on: Annotated[
        list[Path] | None, typer.Option(help="Folder of faces prepared for training; people like them take no part.")
    ] = None,
    people: Annotated[int, typer.Option(help="How many people take part.", min=3)] = 500,
    k: Annotated[int, typer.Option(help="People that average and bank mix.", min=1)] = 5,
    faces: Annotated[int, typer.Option(help="Faces on the pages.", min=1)] = 40,
    seed: Annotated[int, typer.Option(help="Draws people and photos.")] = 0,
    speed: Annotated[bool, typer.Option(help="Time the decoders.")] = True,
) -> None:
    """Compare sources of faces on a labelled dataset; writes generator.json and PNGs into FOLDER."""
    with guarded():
        specs = list(dict.fromkeys([CLEAR, *source]))
        with open_progress() as progress:
            if workspace is None:
                if input is None:
                    raise JobError("name a finished scan by --workspace, or a labelled dataset by --input")
                workspace = scanned(input, subject_field, folder / "workspace", progress)
            storage = open_storage(workspace)
            rows = usable(scan_faces(storage, scan, COLUMNS))
            decoders = {decoder.digest: decoder for spec in specs if (decoder := read_decoder(spec))}
            prepared = {str(prepared): learned_vectors(prepared) for prepared in trained_on or ()}
            without, checks = learned_from(rows, decoders.values(), prepared)
            dataset = open_dataset(input or scanned_dataset(storage))
            participants = assemble(rows, dataset, people=people, strangers=STRANGERS, without=without, seed=seed)
            sources = open_sources(specs, participants, k)
            evaluation = Evaluation(participants, Judges(), progress)
            measured: dict[str, Measured] = {}
            for face_source in sources:
                measured[face_source.name] = evaluation.measure(face_source)
                # A long run that is interrupted leaves the figures it has.
                write(folder, document(participants, checks, measured, {}))
        decoded = [face_source for face_source in sources if isinstance(face_source, DecodedSource)]
        timed = {decoder.name: times(participants, decoder) for decoder in decoded} if speed else {}
        for number, page in enumerate(compared(participants, sources, faces=faces, seed=seed)):
            page.save(folder / f"faces-{number + 1}.png")
        for decoder in decoded:
            control(participants, decoder).save(folder / f"control-{decoder.name}.png")
        written = document(participants, checks, measured, timed)
        write(folder, written)
        show(written, measured)
        print_rows([("written", f"{folder / FIGURES}, faces-*.png, control-*.png")])


def scanned(input: str, subject_field: str, workspace: Path, progress: Progress) -> str:
    """The workspace of a scan that is made here, or finished."""
    config = JobConfig(
        input=InputConfig(uri=input, subject_field=subject_field),
        output=OutputConfig(uri=str(workspace.with_name("release"))),
        workspace=WorkspaceConfig(uri=str(workspace)),
        ray=RayConfig(actors=0),
    )
    Job(config, report=progress, ended=progress.ended).scan()
    return str(workspace)


def times(participants: Participants, source: DecodedSource) -> dict[str, Any]:
    """Median ms a face to decode and to render, one after another, with one thread."""
    pairs = list(enumerate(participants.first[:TIMED].tolist()))
    requests = [source.request(*pair) for pair in pairs]
    photos = [participants.scenes[host] for _, host in pairs]
    textures = [source.face(request) for request in requests]
    decode = median([partial(source.face, request) for request in requests])
    paint = [partial(painted, photo, texture) for photo, texture in zip(photos, textures, strict=True)]
    # A network draws a face for each look where it is first painted; the second time is the renderer's alone.
    render = (median(paint), median(paint))[1]
    return {"faces": len(pairs), "decode": decode, "render": render}


def median(calls: Sequence[Callable[[], object]]) -> float:
    """Of the times of calls in ms."""
    taken = []
    for call in calls:
        began = time.perf_counter()
        call()
        taken.append(1000 * (time.perf_counter() - began))
    return float(np.median(taken))


def document(
    participants: Participants,
    checks: list[str],
    measured: dict[str, Measured],
    timed: dict[str, list[dict[str, Any]]],
) -> dict[str, Any]:
    """Everything as JSON; a rate of no photos is null."""
    return {
        "people": len(participants),
        "strangers": len(participants.strangers),
        "disjoint": checks,
        "standing": STANDING,
        "sources": {name: figures.model_dump() for name, figures in measured.items()},
        "speed": timed,
    }


def write(folder: Path, document: dict[str, Any]) -> None:
    """The figures, appearing whole."""
    LocalStorage(folder).publish(FIGURES, json_bytes(document))


def show(written: dict[str, Any], measured: dict[str, Measured]) -> None:
    """The tables."""
    print(f"{written['people']} people, each in a photo of another; 95 % intervals by person")
    for check in written["disjoint"]:
        print(f"  {check}")

    def row(name: str, cells: list[str]) -> None:
        print(f"  {name:<34}" + "".join(f"{cell:<22}" for cell in cells))

    for recognizer, standing in STANDING.items():
        each = [figures.identity[recognizer] for figures in measured.values()]
        print(f"\n{recognizer} ({standing})")
        row("", list(measured))
        row("cosine to the target", [cell(identity.to_target) for identity in each])
        row("cosine to other targets", [number(identity.to_others) for identity in each])
        row("target at rank 1", [percent(identity.rank_one) for identity in each])
        row(f"  faces turned {FRONTAL:g} degrees at most", [percent(identity.rank_one_frontal) for identity in each])
        chances = [identity.rank_one.chance if identity.rank_one.count else None for identity in each]
        row("  chance", [f"{chance:.1%}" if chance else "-" for chance in chances])
        row("photo's person at rank 1 (naive)", [percent(identity.naive) for identity in each])
        row("one identity, two photos, cosine", [cell(identity.consistency) for identity in each])
        row("two identities, cosine", [number(identity.different) for identity in each])
    looks = [figures.looks for figures in measured.values()]
    print("\nagainst the photo and what was asked")
    row("", list(measured))
    row("face found again", [percent(seen.found) for seen in looks])
    row("expression kept (happy, neutral)", [percent(seen.expression) for seen in looks])
    row("gender as asked", [percent(seen.gender) for seen in looks])
    row("gender as asked, held-out judge", [percent(seen.gender_held_out) for seen in looks])
    row("age band as asked", [percent(seen.age_band) for seen in looks])
    row("age band as asked, held-out judge", [percent(seen.age_band_held_out) for seen in looks])
    row("years older than asked", [cell(seen.age_off, "+.1f") for seen in looks])
    row("years older, held-out judge", [cell(seen.age_off_held_out, "+.1f") for seen in looks])
    row("mesh, from what was meant", [cell(seen.mesh_meant) for seen in looks])
    row("mesh, from the photo's own", [cell(seen.mesh_source) for seen in looks])
    row(f"Frechet distance ({REALISM})", [number(seen.frechet) for seen in looks])
    print(
        f"  meshes in eye distances; Frechet of {written['people']} painted against {written['strangers']} real faces\n"
    )
    for name, timing in written["speed"].items():
        print(f"{name}: decode {timing['decode']:.1f} ms, render {timing['render']:.1f} ms a face")


def percent(figure: Figure) -> str:
    """`12.3% [10.1 14.0]`, or a dash where nothing was counted."""
    if figure.value is None or figure.low is None or figure.high is None:
        return "-"
    return f"{figure.value:.1%} [{100 * figure.low:.1f} {100 * figure.high:.1f}]"


def cell(figure: Figure, digits: str = ".3f") -> str:
    """`.670 [.650 .690]`, or a dash where nothing was counted."""
    if figure.value is None or figure.low is None or figure.high is None:
        return "-"
    return f"{figure.value:{digits}} [{figure.low:{digits}} {figure.high:{digits}}]"


def number(value: float | None) -> str:
    """Three digits, or a dash for none."""
    return "-" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    app()
