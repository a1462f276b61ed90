"""What a generator of faces is worth: `python jobs/evaluate_generator.py FOLDER --workspace SCANNED --source ...`.

Paints the faces of labelled people into photos of others, by every source that is named, on the same photos, and has
them judged: is it the identity that was asked for, is the person of the photo still found, is it a face, of that
gender and age, in that expression and shape, and like real ones. `clear`, the photos as they are, comes along as the
yardstick. Writes figures and pages to look at into FOLDER; both rest on photos of the dataset and are as restricted.
Needs the models of the evaluation set (`anonlib models pull --set evaluation`).
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from anonlib.audit.attacks import Rate
from anonlib.audit.generators.cast import COLUMNS, Participants, assemble, usable
from anonlib.audit.generators.control import compared, control
from anonlib.audit.generators.disjoint import learned_from
from anonlib.audit.generators.evaluation import Evaluation, Measured
from anonlib.audit.generators.fidelity import FRONTAL
from anonlib.audit.generators.figures import cosine, percent, without_nan
from anonlib.audit.generators.judges import REALISM, STANDING, Judges
from anonlib.audit.generators.opened import open_sources, read_decoder
from anonlib.audit.generators.scanned import scan_faces, scanned_dataset
from anonlib.audit.generators.sources import CLEAR, DecodedSource
from anonlib.audit.generators.speed import Speed, speeds
from anonlib.config import InputConfig, JobConfig, OutputConfig, RayConfig, WorkspaceConfig
from anonlib.datasets import open_dataset
from anonlib.errors import JobError
from anonlib.execution.telemetry import Progress, open_progress
from anonlib.job import Job
from anonlib.storage import open_storage
from anonlib.storage.local import LocalStorage
from anonlib.terminal import guarded, print_rows
from anonlib.training.data import learned_vectors
from anonlib.workspace.layout import json_bytes

FIGURES = "generator.json"
STRANGERS = 1000
"""Real faces of other people, at most, that painted faces are held against."""

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
        list[Path], typer.Option(help="Folder of faces prepared for training, whose likes take no part.")
    ] = [],  # noqa: B006
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
            cast, checks = assembled(
                folder, workspace, input, subject_field, scan, specs, trained_on, people, seed, progress
            )
            sources = open_sources(specs, cast, k)
            evaluation = Evaluation(cast, Judges(), progress)
            measured: dict[str, Measured] = {}
            for one in sources.values():
                measured[one.name] = evaluation.measure(one)
                # A long run that is interrupted leaves the figures it has.
                write(folder, document(cast, checks, measured, {}))
        timed = {
            one.name: speeds(cast, spec, k) for spec, one in sources.items() if speed and isinstance(one, DecodedSource)
        }
        folder.mkdir(parents=True, exist_ok=True)
        for number, page in enumerate(compared(cast, list(sources.values()), faces=faces, seed=seed)):
            page.save(folder / f"faces-{number + 1}.png")
        for one in sources.values():
            if isinstance(one, DecodedSource):
                control(cast, one).save(folder / f"control-{one.name}.png")
        written = document(cast, checks, measured, timed)
        write(folder, written)
        show(written, measured, timed)
        print_rows([("written", f"{folder / FIGURES}, faces-*.png, control-*.png")])


def assembled(
    folder: Path,
    workspace: str | None,
    input: str | None,
    subject_field: str,
    scan: str | None,
    specs: list[str],
    trained_on: list[Path],
    people: int,
    seed: int,
    progress: Progress,
) -> tuple[Participants, list[str]]:
    """The people, and in words how it was checked that no source was trained on them."""
    if workspace is None:
        if input is None:
            raise JobError("name a finished scan by --workspace, or a labelled dataset by --input")
        workspace = scanned(input, subject_field, folder / "workspace", progress)
    storage = open_storage(workspace)
    rows = usable(scan_faces(storage, scan, COLUMNS))
    decoders = {decoder.digest: decoder for spec in specs if (decoder := read_decoder(spec))}
    without, said = learned_from(rows, list(decoders.values()), {str(one): learned_vectors(one) for one in trained_on})
    dataset = open_dataset(input or scanned_dataset(storage))
    cast = assemble(rows, dataset, people=people, strangers=STRANGERS, without=without, seed=seed)
    return cast, said


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


def document(
    cast: Participants, checks: list[str], measured: dict[str, Measured], timed: dict[str, list[Speed]]
) -> dict[str, Any]:
    """Everything as JSON; a rate of no photos is null."""
    written: dict[str, Any] = without_nan(
        {
            "people": len(cast),
            "strangers": len(cast.strangers),
            "disjoint": checks,
            "standing": STANDING,
            "sources": {name: asdict(one) for name, one in measured.items()},
            "speed": {name: [asdict(one) for one in each] for name, each in timed.items()},
        }
    )
    return written


def write(folder: Path, document: dict[str, Any]) -> None:
    """The figures, appearing whole."""
    LocalStorage(folder).publish(FIGURES, json_bytes(document))


def show(written: dict[str, Any], measured: dict[str, Measured], timed: dict[str, list[Speed]]) -> None:
    """The tables."""
    print(f"{written['people']} people, each in a photo of another; 95 % intervals by person")
    for check in written["disjoint"]:
        print(f"  {check}")

    def row(name: str, cells: list[str]) -> None:
        print(f"  {name:<34}" + "".join(f"{cell:<22}" for cell in cells))

    for recognizer, active in STANDING.items():
        each = [one.identity[recognizer] for one in measured.values()]
        print(f"\n{recognizer} ({active})")
        row("", list(measured))
        row("cosine to the target", [cosine(one.to_target) for one in each])
        row("cosine to other targets", [number(one.to_others) for one in each])
        row("target at rank 1", [percent(one.rank_one) for one in each])
        row(f"  faces turned {FRONTAL:g} degrees at most", [percent(one.rank_one_frontal) for one in each])
        row(
            "  chance",
            [f"{one.rank_one.chance:.1%}" if one.rank_one.count and one.rank_one.chance else "-" for one in each],
        )
        row("photo's person at rank 1 (naive)", [percent(one.naive) for one in each])
        row("one identity, two photos, cosine", [cosine(one.consistency) for one in each])
        row("two identities, cosine", [number(one.different) for one in each])
    looks = [one.looks for one in measured.values()]
    print("\nagainst the photo and what was asked")
    row("", list(measured))
    row("face found again", [percent(one.found) for one in looks])
    row("expression kept (happy, neutral)", [percent(one.expression) for one in looks])
    row("gender as asked", [percent(one.gender) for one in looks])
    row("gender as asked, held-out judge", [percent(one.gender_held_out) for one in looks])
    row("age band as asked", [percent(one.age_band) for one in looks])
    row("age band as asked, held-out judge", [percent(one.age_band_held_out) for one in looks])
    row("years older than asked", [signed(one.age_off) for one in looks])
    row("years older, held-out judge", [signed(one.age_off_held_out) for one in looks])
    row("mesh, from what was meant", [cosine(one.mesh_meant) for one in looks])
    row("mesh, from the photo's own", [cosine(one.mesh_source) for one in looks])
    row(f"Frechet distance ({REALISM})", [number(one.frechet) for one in looks])
    print(
        f"  meshes in eye distances; Frechet of {written['people']} painted against {written['strangers']} real faces\n"
    )
    for name, each in timed.items():
        for one in each:
            on = f"{one.threads} thread(s)" if one.device == "cpu" else one.device
            batched = "" if one.batched is None else f", the network in batches of {one.faces} {one.batched:.1f} ms"
            print(f"{name}, {on}: decode {one.decode:.1f} ms, render {one.render:.1f} ms a face{batched}")


def signed(rate: Rate) -> str:
    """`-3.1 [-3.9 -2.3]`, or a dash where nothing was counted."""
    return f"{rate.value:+.1f} [{rate.low:+.1f} {rate.high:+.1f}]" if rate.count else "-"


def number(value: float) -> str:
    """Three digits, or a dash for none."""
    return f"{value:.3f}" if value == value else "-"


if __name__ == "__main__":
    app()
