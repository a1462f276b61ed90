"""Attacks a finished job and measures what it kept: `python jobs/evaluate.py JOB.yaml`, or the same flags as the job.

It reads originals, so it runs where the workspace is, before the purge, and writes evaluation.json there. Needs the
models of the evaluation set (`anonlib models pull --set evaluation`) and a field that names the person.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from anonlib.audit.attacks import FAR, Attacks, attack
from anonlib.audit.evidence import Evidence
from anonlib.audit.figures import cosine, percent, without_nan
from anonlib.audit.gather import gather
from anonlib.audit.linkage import Linkage, link
from anonlib.audit.looks import RECOGNIZERS
from anonlib.audit.utility import Fallbacks, Utility, measure
from anonlib.cli import Given, takes_job
from anonlib.config import JobConfig, load_config
from anonlib.console import open_progress, print_rows
from anonlib.pipeline.job import JobError
from anonlib.pipeline.places import json_bytes, open_places
from anonlib.storage import join_uri

EVALUATION = "evaluation.json"
SEED = 0

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
@takes_job
def evaluate(
    given: Given,
    link_with: Annotated[
        Path | None, typer.Option(help="The job file of another release of these people: can the two be linked?")
    ] = None,
) -> None:
    """Attack the release of a finished job and measure its utility; writes evaluation.json into the workspace."""
    config = given.config()
    if config.input.subject_field is None:
        raise JobError("an evaluation must know who is in a photo; name the field by --subject-field")
    with open_progress() as progress:
        evidence = gather(config, report=progress)
    attacks = {name: attack(evidence, name, seed=SEED) for name in RECOGNIZERS}
    utility = measure(evidence, seed=SEED)
    linked: dict[str, Linkage] = {}
    if link_with is not None:
        with open_progress() as progress:
            other = gather(load_config(link_with), report=progress)
        linked = {name: link(evidence, other, name) for name in RECOGNIZERS}
    written = document(config, evidence, attacks, utility, linked)
    open_places(config).workspace.publish(EVALUATION, json_bytes(written))
    show(evidence, attacks, utility)
    show_linkage(linked)
    print_rows([("written", join_uri(config.workspace.uri, EVALUATION))])


def document(
    config: JobConfig, evidence: Evidence, attacks: dict[str, Attacks], utility: Utility, linked: dict[str, Linkage]
) -> dict[str, Any]:
    """Everything as JSON; a rate of no photos is null."""
    written: dict[str, Any] = without_nan(
        {
            "method": config.method.model_dump(mode="json"),
            "people": len(set(evidence.subjects.tolist())),
            "photos": len(evidence.subjects),
            "far": FAR,
            "attacks": {name: asdict(one) for name, one in attacks.items()},
            "utility": asdict(utility),
            "linkage": {name: asdict(one) for name, one in linked.items()},
        }
    )
    return written


def show(evidence: Evidence, attacks: dict[str, Attacks], utility: Utility) -> None:
    """The table."""
    people, photos = len(set(evidence.subjects.tolist())), len(evidence.subjects)
    print(f"{photos:,} photos of {people:,} people; 95 % intervals by person\n")
    print(f"{'attack':<28}" + "".join(f"{name:<24}" for name in attacks) + "chance")
    for name in next(iter(attacks.values())).rates:
        rates = [one.rates[name] for one in attacks.values()]
        chance = rates[0].chance
        said = f"{chance:.1%}" if chance is not None else ""
        print(f"{name:<28}" + "".join(f"{percent(one):<24}" for one in rates) + said)
    alike = [one.same_surrogate for one in attacks.values()]
    print(f"{'cosine, same surrogate':<28}" + "".join(f"{cosine(one):<24}" for one in alike))
    told = [f"{one.threshold:.3f} {'measured' if one.measured_here else 'catalogue'}" for one in attacks.values()]
    print(f"{f'cosine at FAR {FAR:g}':<28}" + "".join(f"{one:<24}" for one in told))
    print(f"{'impostor pairs':<28}" + "".join(f"{one.impostors:<24,}" for one in attacks.values()) + "\n")
    rows = [(name, percent(one)) for name, one in utility.rates.items() if name != "landmark error"]
    error = utility.rates["landmark error"]
    rows.append(("landmark error", f"{error.value:.3f} [{error.low:.3f} {error.high:.3f}] eye distances"))
    rows += redacted("solid, labelled", utility.labelled) + redacted("solid, all faces", utility.all_faces)
    rows.append(("quarantined", f"{utility.quarantined:,} of {utility.images:,} images"))
    print_rows(rows)


def show_linkage(linked: dict[str, Linkage]) -> None:
    """AUCs of the two releases, if there are two."""
    for name, one in linked.items():
        print(
            f"AUC between the releases, {name:<14}{one.all_pairs:.3f}, same gender {one.same_gender:.3f}, "
            f"clear photos {one.clear:.3f}, face hidden {one.hidden:.3f}"
        )


def redacted(name: str, fallbacks: Fallbacks) -> list[tuple[str, str]]:
    """How many faces became a flat ellipse, and why."""
    share = f" ({fallbacks.share:.1%})" if fallbacks.faces else ""
    head = (name, f"{fallbacks.solid:,} of {fallbacks.faces:,}{share}")
    return [head, *(("", f"{count:,}: {why}") for why, count in fallbacks.reasons.items())]


if __name__ == "__main__":
    app()
