"""Trains the networks that ship: `prepare` once, a network as often as there is time, then `export`.

    python jobs/train_generator.py prepare 'photos-*.tar' FACES --apart-from 'judges-*.tar' --workers 2
    python jobs/train_generator.py ksame-net FACES RUN --minutes 60 --terms "non-commercial research" --no-commercial
    python jobs/train_generator.py embedding FACES RUN --minutes 60 --terms "non-commercial research" --no-commercial
    python jobs/train_generator.py export RUN network.onnx

The same on a CPU and a GPU (`--device cuda`). FACES and RUN are folders; both travel in files of tens of MB. A run that
was cut off continues from its checkpoint. FACES holds personal data, and RUN a network that can draw these people.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from anonlib.execution.telemetry import open_progress
from anonlib.synthesis.base import DecoderNotes
from anonlib.terminal import guarded, print_rows

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

Faces = Annotated[Path, typer.Argument(help="A folder of prepared faces.")]
Run = Annotated[Path, typer.Argument(help="The run's folder.")]
Minutes = Annotated[float, typer.Option(help="How long the run may take, all its pieces together.")]
Terms = Annotated[str, typer.Option(help="Under which terms the photos may be used.")]
About = Annotated[str, typer.Option(help="What the photos are.")]
Commercial = Annotated[bool, typer.Option(help="Whether the terms allow commercial use.")]
Batch = Annotated[int, typer.Option(min=2, help="Faces a step.")]
Device = Annotated[str, typer.Option(help="cpu or cuda.")]
Full = Annotated[bool, typer.Option("--full", help="float32 throughout, where bf16 is slow.")]
Threads = Annotated[int, typer.Option(min=1)]
Rate = Annotated[float, typer.Option(help="Of learning, at the start.")]
PHOTOS = "photos of the user"


@app.command()
def prepare(
    data: Annotated[str, typer.Argument(help="The photos: a folder, tars or Parquet files, as a job's input.")],
    faces: Faces,
    apart_from: Annotated[list[str] | None, typer.Option(help="A dataset that judges: leave its people out.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
) -> None:
    """Find, describe and align the faces of a dataset; what is done already is kept."""
    from training.data import prepare as run

    with open_progress() as progress:
        photos, left_out = run(data, faces, apart_from=apart_from or (), workers=workers, report=progress)
    reasons = ((f"  {reason}", f"{count:,} left out") for reason, count in left_out.most_common())
    print_rows([("photos", f"{photos:,}"), *reasons, ("faces", f"{photos - left_out.total():,} in {faces}")])


@app.command(name="ksame-net")
def ksame_net(
    faces: Faces, run: Run, minutes: Minutes, terms: Terms, about: About = PHOTOS, commercial: Commercial = False,
    size: Annotated[int, typer.Option(help="Side of the texture in px: 128 or 256.")] = 128,
    grown_from: Annotated[Path | None, typer.Option(help="A run of half the size to begin with.")] = None,
    batch: Batch = 16, device: Device = "cpu", full: Full = False, threads: Threads = 2, rate: Rate = 6e-4,
    seed: int = 0,
) -> None:  # fmt: skip
    """Train ksame-net, or continue."""
    from training.generator import train_ksame_net
    from training.trainer import TrainingSettings

    settings = TrainingSettings(60 * minutes, rate, device, not full, threads, seed)
    notes = DecoderNotes(about, terms, 0, commercial)
    show(train_ksame_net(faces, run, settings, notes, size=size, grown_from=grown_from, batch=batch))


@app.command()
def embedding(
    faces: Faces, run: Run, minutes: Minutes, terms: Terms, about: About = PHOTOS, commercial: Commercial = False,
    batch: Batch = 8, device: Device = "cpu", full: Full = False, threads: Threads = 2, rate: Rate = 6e-4,
    seed: int = 0,
) -> None:  # fmt: skip
    """Train the network of the method embedding, or continue."""
    from training.feature_transfer import train_embedding
    from training.trainer import TrainingSettings

    settings = TrainingSettings(60 * minutes, rate, device, not full, threads, seed)
    show(train_embedding(faces, run, settings, DecoderNotes(about, terms, 0, commercial), batch=batch))


@app.command()
def export(
    run: Run,
    output: Annotated[Path, typer.Argument(help="The .onnx file to write; its card goes beside it.")],
    note: Annotated[str, typer.Option(help="What else the card should say of the run.")] = "",
) -> None:
    """Write a trained network as ONNX with its model card."""
    from training.export import export as write

    network = write(run, output, note)
    print_rows([("network", str(output)), ("sha256", network.digest), ("terms", network.about.terms)])


def show(record: dict[str, Any]) -> None:
    """How far the run is."""
    steps = f"{record['steps']:,} in {record['seconds'] / 60:.0f} minutes on {record['machine']}"
    print_rows([("steps", steps), *((name, f"{value:.3f}") for name, value in record["figures"].items())])


if __name__ == "__main__":
    with guarded():
        app()
