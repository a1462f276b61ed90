"""Trains the networks that draw faces, in pieces: `prepare` once, `ksame-net` as often as there is time, `export`.

    python jobs/train_generator.py prepare 'photos-*.tar' FACES --apart-from 'judges-*.tar' --workers 2
    python jobs/train_generator.py ksame-net FACES RUN --minutes 60 --terms "non-commercial research" --no-commercial
    python jobs/train_generator.py export RUN ksame-net.onnx

The same on a CPU and a GPU (`--device cuda --compiled`). FACES and RUN are folders; both travel in files of tens of MB.
A run that was cut off goes on from its checkpoint. FACES holds personal data; so does RUN, whose sheets show people.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from anonlib.execution.progress import open_progress
from anonlib.terminal import guarded, print_rows

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

Folder = Annotated[Path, typer.Argument(help="A folder of prepared faces.")]


@app.command()
def prepare(
    data: Annotated[str, typer.Argument(help="The photos: a folder, tars or Parquet files, as a job's input.")],
    faces: Folder,
    apart_from: Annotated[
        list[str] | None, typer.Option(help="A dataset that will judge: leave its people out.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
) -> None:
    """Find, describe and align the faces of a dataset; what is done already is kept."""
    from anonlib.training.generator.faces import prepare as run
    from anonlib.training.generator.faces import tally

    with open_progress() as progress:
        run(data, faces, apart_from=apart_from or (), workers=workers, report=progress)
    photos, left_out = tally(faces)
    print_rows(
        [
            ("photos", f"{photos:,}"),
            *((f"  {reason}", f"{count:,} left out") for reason, count in left_out.most_common()),
            ("faces", f"{photos - left_out.total():,} in {faces}"),
        ]
    )


@app.command(name="ksame-net")
def ksame_net(
    faces: Folder,
    run: Annotated[Path, typer.Argument(help="The run's folder.")],
    minutes: Annotated[float, typer.Option(help="How long the run may take, all its pieces together.")],
    terms: Annotated[str, typer.Option(help="Under which terms the photos may be used.")],
    about: Annotated[str, typer.Option(help="What the photos are.")] = "photos of the user",
    commercial: Annotated[bool, typer.Option(help="Whether the terms allow commercial use.")] = False,
    size: Annotated[int, typer.Option(help="Side of the texture in px: 128 or 256.")] = 128,
    grown_from: Annotated[Path | None, typer.Option(help="A run of half the size to begin with.")] = None,
    batch: Annotated[int, typer.Option(min=2)] = 16,
    workers: Annotated[int, typer.Option(min=1, help="Processes that place the faces before training.")] = 1,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    compiled: Annotated[bool, typer.Option("--compiled", help="torch.compile, for a GPU.")] = False,
    full: Annotated[bool, typer.Option("--full", help="float32 throughout, where bf16 is slow.")] = False,
    threads: Annotated[int, typer.Option(min=1)] = 2,
    rate: Annotated[float, typer.Option(help="Of learning, at the start.")] = 6e-4,
    seed: Annotated[int, typer.Option()] = 0,
) -> None:
    """Train ksame-net, or go on with it."""
    from anonlib.synthesis.base import DecoderNotes
    from anonlib.training.generator.trainer import train
    from anonlib.training.loop import Settings

    settings = Settings(60 * minutes, rate, device=device, bf16=not full, compiled=compiled, threads=threads, seed=seed)
    record = train(faces, run, settings, DecoderNotes(about, terms, 0, commercial), size, grown_from, batch, workers)
    print_rows(
        [
            ("steps", f"{record.steps:,} in {record.seconds / 60:.0f} minutes on {record.machine}"),
            *((name, f"{value:.3f}") for name, value in record.figures.items()),
        ]
    )


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="The run's folder.")],
    output: Annotated[Path, typer.Argument(help="The .onnx file to write; its card goes beside it.")],
    note: Annotated[str, typer.Option(help="What else the card should say of the run.")] = "",
) -> None:
    """Write a trained network as ONNX with its model card."""
    from anonlib.training.generator.trainer import export as write

    decoder = write(run, output, note)
    print_rows([("network", str(output)), ("sha256", decoder.digest), ("terms", decoder.about.terms)])


@app.command()
def embedding(
    faces: Folder,
    run: Annotated[Path, typer.Argument(help="The run's folder.")],
    minutes: Annotated[float, typer.Option(help="How long the run may take, all its pieces together.")],
    terms: Annotated[str, typer.Option(help="Under which terms the photos may be used.")],
    about: Annotated[str, typer.Option(help="What the photos are.")] = "photos of the user",
    commercial: Annotated[bool, typer.Option(help="Whether the terms allow commercial use.")] = False,
    batch: Annotated[int, typer.Option(min=2)] = 8,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    full: Annotated[bool, typer.Option("--full", help="float32 throughout, where bf16 is slow.")] = False,
    threads: Annotated[int, typer.Option(min=1)] = 2,
    rate: Annotated[float, typer.Option(help="Of learning, at the start.")] = 6e-4,
    seed: Annotated[int, typer.Option()] = 0,
) -> None:
    """Train the network of the method embedding, or go on with it."""
    from anonlib.synthesis.base import DecoderNotes
    from anonlib.training.feature_transfer.trainer import train
    from anonlib.training.loop import Settings

    settings = Settings(60 * minutes, rate, device=device, bf16=not full, threads=threads, seed=seed)
    record = train(faces, run, settings, DecoderNotes(about, terms, 0, commercial), batch)
    print_rows(
        [
            ("steps", f"{record.steps:,} in {record.seconds / 60:.0f} minutes on {record.machine}"),
            *((name, f"{value:.3f}") for name, value in record.figures.items()),
        ]
    )


@app.command(name="export-embedding")
def export_embedding(
    run: Annotated[Path, typer.Argument(help="The run's folder.")],
    output: Annotated[Path, typer.Argument(help="The .onnx file to write; its card goes beside it.")],
    note: Annotated[str, typer.Option(help="What else the card should say of the run.")] = "",
) -> None:
    """Write the network of the method embedding as ONNX with its donors and its model card."""
    from anonlib.training.feature_transfer.trainer import export as write

    made = write(run, output, note)
    print_rows([("network", str(output)), ("sha256", made.digest), ("terms", made.about.terms)])


if __name__ == "__main__":
    with guarded():
        app()
