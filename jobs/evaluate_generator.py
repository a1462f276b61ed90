"""What a decoder of faces is worth: `python jobs/evaluate_generator.py FOLDER --workspace SCANNED --source ...`.

Paints the faces of labelled people into photos of others, by every decoder that is named, on the same photos, and has
them judged: is it the identity that was asked for, is the person of the photo still found, is it a face, of that
gender and age, in that expression. `clear`, the photos as they are, is always measured too, as the yardstick. People
of this dataset belong into no training: `train_generator.py prepare --apart-from DATASET` leaves them out.
Writes figures and pages to look at into FOLDER; both rest on photos of the dataset and are as restricted. Needs the
models of the evaluation set (`anonlib models pull --set evaluation`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from anonlib.audit.findings import Figure
from anonlib.datasets import open_dataset
from anonlib.errors import JobError
from anonlib.execution.telemetry import open_progress
from anonlib.storage import open_storage
from anonlib.storage.local import LocalStorage
from anonlib.terminal import guarded, print_rows
from anonlib.training.evaluate import COLUMNS, STANDING, assemble, read_decoder, scan_faces, sheet
from anonlib.training.evaluate import evaluate as measure
from anonlib.workspace.inventory import read_note
from anonlib.workspace.layout import json_bytes

FIGURES = "generator.json"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def evaluate(
    folder: Annotated[Path, typer.Argument(help="Where figures and pages go; not into a release.")],
    workspace: Annotated[str, typer.Option(help="Folder or S3 URI of a finished scan; it is only read.")],
    source: Annotated[list[str], typer.Option(help="linear:FILE, bank:FILE, ksame-net[:FILE]; repeat it.")],
    input: Annotated[str | None, typer.Option(help="The dataset, if not the one that the workspace names.")] = None,
    scan: Annotated[str | None, typer.Option(help="Which scan, where the workspace has several.")] = None,
    people: Annotated[int, typer.Option(help="How many people take part.", min=3)] = 500,
    k: Annotated[int, typer.Option(help="People that bank mixes.", min=1)] = 5,
    faces: Annotated[int, typer.Option(help="Faces on a page.", min=1)] = 40,
    seed: Annotated[int, typer.Option(help="Draws people and photos.")] = 0,
) -> None:
    """Compare decoders of faces on a labelled dataset; writes generator.json and PNGs into FOLDER."""
    with guarded():
        decoders = {spec: read_decoder(spec) for spec in ("clear", *source)}
        storage = open_storage(workspace)
        rows = scan_faces(storage, scan, COLUMNS)
        note = read_note(storage)
        if note is None:
            raise JobError("this workspace has no inventory; is it that of a job?")
        dataset = open_dataset(input or str(note["input"]))
        participants = assemble(rows, dataset, people=people, seed=seed)
        with open_progress() as progress:
            figures = measure(participants, decoders, k, progress)
        plain = {spec: {name: figure.model_dump() for name, figure in row.items()} for spec, row in figures.items()}
        written = {"people": len(participants), "standing": STANDING, "sources": plain}
        LocalStorage(folder).publish(FIGURES, json_bytes(written))
        for number, decoder in enumerate(decoders.values()):
            if decoder is not None:
                sheet(participants, decoder, k, faces, seed).save(folder / f"faces-{number}.png")
    print(f"{len(participants)} people, each in a photo of another; 95 % intervals by person")
    print(f"\n{'':<50}" + "".join(f"{spec:<24}" for spec in figures))
    for name in figures["clear"]:
        print(f"{name:<50}" + "".join(f"{cell(row[name]):<24}" for row in figures.values()))
    print_rows([("written", f"{folder / FIGURES}, faces-*.png")])


def cell(figure: Figure) -> str:
    """`.670 [.650 .690]`, or a dash where nothing was counted."""
    if figure.value is None or figure.low is None or figure.high is None:
        return "-"
    return f"{figure.value:.3f} [{figure.low:.3f} {figure.high:.3f}]"


if __name__ == "__main__":
    app()
