"""A whole run: inventory, scan, plan, surrogates, render, each a loop over what has no marker yet (rounds.py).

A stage gets three rounds; what is left then is quarantined with its reason, so a job always ends in an answer. A second
run of the same job does only what is missing. The run key holds the digest of the plan: a late face cannot meet a stale
plan.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from operator import attrgetter
from typing import Any

from anonlib import __version__
from anonlib.codes import Reason
from anonlib.config import JobConfig
from anonlib.datasets import Shard, open_input
from anonlib.errors import JobError, StorageError, VerificationError
from anonlib.execution.base import UnitResult
from anonlib.execution.capacity import fits_here
from anonlib.execution.retry import with_retries
from anonlib.execution.rounds import DIED, ROUNDS, MakeStage, Runner, Unit, open_runner, run_rounds
from anonlib.execution.telemetry import Labels, Report, Round
from anonlib.faces.detect import detector_file
from anonlib.faces.hidden import network_of, own_networks
from anonlib.methods import method_of, models_of
from anonlib.methods.base import USERS_OWN, MethodFile
from anonlib.models.cache import model_bytes
from anonlib.models.catalog import MODELS
from anonlib.models.requirements import check_licences, check_precision, own_terms
from anonlib.privacy.keys import Keyring, Purpose
from anonlib.stages.certify import certify
from anonlib.stages.plan import Plan, PlanStage, SurrogateStage
from anonlib.stages.redact import RedactStage
from anonlib.stages.render import RenderStage, quarantine_shard
from anonlib.stages.render_state import METHOD_VERSION
from anonlib.stages.rerender import ActiveDecisions, check_against_markers, finish_invalidation, invalidate_shards
from anonlib.stages.scan import Beside, ScanStage, lose
from anonlib.stages.spare import Consents, consent_photos, digest_of
from anonlib.storage import open_storage
from anonlib.verification.certificate import VERSION as SCHEMA_VERSION
from anonlib.workspace import layout
from anonlib.workspace.decisions import DecisionLog
from anonlib.workspace.inventory import (
    check_inventory,
    claim_inventory,
    keep_job,
    read_note,
    with_commit,
    with_precision,
)
from anonlib.workspace.lease import Lease
from anonlib.workspace.release import Naming
from anonlib.workspace.secrets import bind, open_pinned, signing_secret
from anonlib.workspace.status import Summary, note_failure

_MOST_NAMES = 8
"""Fields that a sentence names."""
_FIRST_SHARDS, _ENOUGH_IMAGES = 3, 1000
"""What is scanned before labels are looked for the first time."""


def preflight(config: JobConfig) -> dict[str, Callable[[], object]]:
    """What is checked before a job opens anything, by what it is about; each check raises ConfigError."""
    names = {name for models in models_of(config) for name in models}
    return {"licences": lambda: check_licences(names, config), "precision": lambda: check_precision(config)}


def detector_files(config: JobConfig) -> dict[str, MethodFile]:
    """The user's own networks that find something, by name; raises ConfigError where one cannot or may not be used."""
    files = own_networks(config) | dict(filter(None, [detector_file(config.detector)]))
    return {
        name: MethodFile(data, own_terms(name, data, config.accept_licences) or USERS_OWN)
        for name, data in files.items()
    }


class Job:
    """One job, opened; the verbs are the stages. `report` hears of every outcome, `ended` of every round of a stage."""

    def __init__(
        self,
        config: JobConfig,
        *,
        report: Report | None = None,
        ended: Callable[[Round], None] | None = None,
        runner: Runner | None = None,
    ) -> None:
        self.report = report or (lambda stage, outcome, units: None)
        self.ended = ended or (lambda of_stage: None)
        self.method = method_of(config.method)
        self._scan_models, self._render_models = models_of(config)
        preflight(config)["licences"]()
        self._detector_files = detector_files(config)
        self.files = self.method.read_files(config) | self._detector_files
        self._travelling = {name: file.data for name, file in self.files.items() if file.travels}
        self.stores: layout.JobStores = layout.open_stores(config)
        if self.stores.workspace.exists(layout.PURGED):
            raise JobError(f"the workspace {config.workspace.uri} was purged; give this job a new one")
        self.lease = Lease(self.stores.workspace, with_retries)
        self._at_commit = with_commit(config, self.stores.workspace)
        self.dataset = open_input(self._at_commit)
        self.shards = self.dataset.shards()
        if runner is None and fits_here(config.ray, sum(shard.bytes for shard in self.shards)):
            config = config.model_copy(update={"ray": config.ray.model_copy(update={"actors": 0})})
        self._parted = config.ray.part
        config = config.model_copy(update={"ray": config.ray.model_copy(update={"part": None})})
        self.config = config = with_precision(config, self.stores.workspace)
        self._inventory_digest = check_inventory(config, self.stores, self.shards)
        self.runner = runner or open_runner(config.ray)

    def _begin(self) -> None:
        """Write down the list of work, and make salt and secret where there are none. The rest of `Job` only reads."""
        check_precision(self.config)
        claim_inventory(self.config, self._at_commit, self.stores, self.shards, self.dataset.left_out)
        keep_job(self.config, self.stores.workspace)
        if "pinned" not in self.__dict__:
            self.pinned = open_pinned(self.config, self.stores, make=True)

    def _check_places(self) -> None:
        """Raises JobError where a place of a job that begins cannot be written, before hours of scanning end there."""
        if self.stores.release.exists(layout.RUN_NOTE):
            return
        places = {"workspace": self.stores.workspace, "output": self.stores.release}
        if self.config.ledger:
            places["ledger"] = open_storage(self.config.ledger.uri, self.config.storage.options, private=True)
        for name, place in places.items():
            try:
                probe = place.probe(leave_nothing=True)
            except StorageError as error:
                raise JobError(f"the {name} {place.uri} cannot be used: {error}") from None
            if not (probe.readable and probe.writable):
                raise JobError(f"the {name} {place.uri} cannot be used: {' '.join(probe.details)}")

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        """Holds the job's lease of the workspace."""
        with self.lease.held():
            self._begin()
            yield

    @cached_property
    def pinned(self) -> tuple[JobConfig, Keyring]:
        """The job as its workers get it, and its keyring; raises ConfigError for a workspace that has no salt yet."""
        return open_pinned(self.config, self.stores)

    @property
    def keyring(self) -> Keyring:
        return self.pinned[1]

    @property
    def naming(self) -> Naming:
        return Naming(self.keyring, self.config.rekey)

    def run(self) -> Summary:
        """All stages; raises JobError, ConfigError or StorageError where it cannot go on."""
        self._check_places()
        with self._at_work():
            if not (self.method.synthesis or self.config.input.subject_field or self.config.input.boxes_field):
                self._redact()
                if self._parted:
                    return self.summary()
            elif self._parted:
                raise JobError("a part of this job cannot run alone: run scan --part, plan, render --part, then run")
            self.scan()
            return self.render(self.make_plan())

    def _redact(self) -> None:
        """Scan and render in one pass what is not scanned; what fails here is left to the two stages.

        Not with labels or boxes, which are checked before anything is released.
        """
        with_retries(lambda: bind(self.config, self.stores, self.keyring))
        plan, store = Plan.of_redaction(self.plan_key), layout.scan_store(self.stores, self.scan_key)
        run_key, active, _ = self._claim_release(plan)
        make = partial(RedactStage, self._scan_stage(), self._render_stage(plan, run_key, active))
        self._rounds("redact", run_key, make, self._part(self.shards), store.done, attrgetter("shard_id"))

    def scan(self) -> None:
        """faces/ and images/; what fails thrice is lost. Raises JobError where workers died of every shard."""
        key = self.scan_key
        store = layout.scan_store(self.stores, key)
        with self._at_work():
            make, shards = self._scan_stage(), _spread(self._part(self.shards))
            failed = self._rounds("scan", key, make, shards, store.done, attrgetter("shard_id"), self._label_watch())
            if len(failed) == len(shards) and DIED in failed.values():
                raise JobError(_first("scanning", failed))
            for shard in self.shards:
                if shard.shard_id in failed:
                    lose(shard, failed[shard.shard_id], store)
            self._check_labels()

    def _scan_stage(self) -> Callable[[], ScanStage]:
        weights = self._scan_weights()
        return partial(ScanStage, self.config, self.dataset, self.stores, self.scan_key, weights, self._consents)

    def _scan_weights(self) -> dict[str, bytes]:
        weights = {name: model_bytes(name) for name in self._scan_models}
        return weights | {name: file.data for name, file in self._detector_files.items()}

    @cached_property
    def _consents(self) -> Consents | None:
        return Consents.of(self.config, self._consent_photos, self._scan_weights())

    def make_plan(self) -> Plan:
        """Subjects, classes, assignments and surrogates; needs a finished scan."""
        with self._at_work():
            missing = {shard.shard_id for shard in self.shards} - layout.scan_store(self.stores, self.scan_key).done()
            if missing:
                scanned = f"{len(missing)} of {len(self.shards)} shards are not scanned yet"
                raise JobError(f"{scanned}; run `anonlib scan` first")
            self._check_labels()
            with_retries(lambda: bind(self.config, self.stores, self.keyring))
            key, store = self.plan_key, layout.plan_store(self.stores, self.plan_key)
            stage = PlanStage(self.config, self.stores, self.keyring, self.scan_key, key, self._travelling)
            plan = with_retries(lambda: stage.run(self.shards))
            self._refuse_too_few(plan)
            make = partial(SurrogateStage, self.config, self.stores, self.scan_key, key, self._travelling)
            if failed := self._rounds("surrogates", key, make, plan.blocks, store.blocks_done, str):
                raise JobError(_first("making surrogates", failed))
            return plan

    def _refuse_too_few(self, plan: Plan) -> None:
        """Raise JobError where most people would get no face of their own class: k is too large for the dataset."""
        k, people = self.method.claim.k, plan.persons
        enough = 2 * (k or 0) <= people and plan.classes
        if k is None or not people or self.config.too_few == "ellipse" or enough or self.method.serves_few:
            return
        found = (
            f"k = {k} is more than half of the {people} people that the plan found, so they would share one face or "
            "be hidden under ellipses"
            if 2 * k > people
            else f"none of the {people} people that the plan found can get a new face at k = {k}: too few can hide "
            "together, or too few photos are good enough to make faces of"
        )
        smaller = f"take k of {min(k - 1, people // 2)} or less, " if people >= 4 and k > 2 else ""
        raise JobError(
            f"{found}; {smaller}add photos of more people, use another method (docs/methods.md), or go on with "
            "ellipses by --too-few ellipse"
        )

    def render(self, plan: Plan | None = None) -> Summary:
        """data/, manifest/, markers, again where a reviewer decided; then, unless it is a part, the certificate."""
        with self._at_work():
            plan = plan or self.make_plan()
            run_key, active, signing = self._claim_release(plan)
            log = DecisionLog(self.stores.workspace, run_key)
            job = (self.stores, self.shards)
            again = with_retries(lambda: invalidate_shards(*job, self.scan_key, active, self.naming, self.lease))
            self._render_shards(plan, run_key, active)
            if self._parted:
                return self.summary()
            with_retries(lambda: finish_invalidation(*job, self.naming))
            try:
                # The decisions as they are now: this run may have slept while a reviewer decided.
                with_retries(lambda: check_against_markers(*job, ActiveDecisions.of_log(log), self.naming, again))
                with_retries(lambda: certify(self.config, self.stores, self.keyring, signing, plan.key, plan.blocks))
            except VerificationError as error:
                raise JobError(f"the release gets no certificate, and must not leave: {error}") from None
            return self.summary()

    def _claim_release(self, plan: Plan) -> tuple[str, ActiveDecisions, bytes]:
        """The run's key, the decisions that stand, and what signs; raises JobError where another job's release is."""
        run_key = self._run_key(plan)
        note, release = layout.json_bytes(self._run_note(run_key)), self.stores.release
        if not release.claim(layout.RUN_NOTE, note) and release.read(layout.RUN_NOTE) != note:
            other = f"the output {release.uri} holds a release of another job (its run.json differs)"
            raise JobError(f"{other}; give this one another output")
        signing = signing_secret(self.config, self.stores, self.keyring)
        return run_key, ActiveDecisions.of_log(DecisionLog(self.stores.workspace, run_key)), signing

    def _render_stage(self, plan: Plan, run_key: str, active: ActiveDecisions) -> Callable[[], RenderStage]:
        keys = {"scan": self.scan_key, "plan": plan.key, "render": run_key}
        models = {name: model_bytes(name) for name in self._render_models} | self._travelling
        check = self.keyring.check()
        return partial(RenderStage, self.pinned[0], self.dataset, self.stores, keys, models, active, check)

    def _render_shards(self, plan: Plan, run_key: str, active: ActiveDecisions) -> None:
        """Commit every shard; one that was not scanned, or fails three times, is quarantined as a whole."""
        make = self._render_stage(plan, run_key, active)
        store = layout.scan_store(self.stores, self.scan_key)
        lost = store.lost()
        scanned = [shard for shard in self._part(self.shards) if shard.shard_id not in lost]
        failed = self._rounds("render", run_key, make, scanned, self._rendered, attrgetter("shard_id"))
        failed |= dict.fromkeys(lost - self._rendered(), Reason.SHARD_UNSCANNED.meaning)
        for shard in self.shards:
            if why := failed.get(shard.shard_id):
                result = quarantine_shard(shard, why, self.stores, store, run_key, self.naming, active)
                if result is not None:
                    self.runner.count(self._about("render"), result, lost=True)

    def summary(self) -> Summary:
        """Counts from the release's markers."""
        markers = layout.release_store(self.stores).markers(self.naming.shards(self.shards))
        return Summary.of({"shards": self.shards, "left_out": self._listed_out()}, markers)

    def notes(self) -> list[tuple[str, str]]:
        """What a person should hear of the fields that the job keeps, a row each: what is nowhere, what is dropped."""
        keep, beside = self.config.keep_fields, self._beside()
        rows = [("keep_fields", f"{name!r} is in no image: nothing of it is kept") for name in beside.missing(keep)]
        dropped = [f"{name} of {count:,}" for name, count in beside.dropped(keep).items()]
        if more := dropped[_MOST_NAMES:]:
            dropped[_MOST_NAMES:] = [f"and {len(more)} other fields"]
        return rows + ([("dropped", f"{', '.join(dropped)} images (keep_fields says what stays)")] if dropped else [])

    def _beside(self) -> Beside:
        """What the scan has found beside the photos."""
        return Beside.of(layout.scan_store(self.stores, self.scan_key).markers(s.shard_id for s in self.shards))

    def _listed_out(self) -> dict[str, int]:
        """How many objects in the input's places are no images of it, by kind; markers count those in shards."""
        return dict(sorted((read_note(self.stores.workspace) or {}).get("left_out", {}).items()))

    def _label_watch(self) -> Callable[[UnitResult], None]:
        """Checks the labels once, when the first shards with enough images are scanned: a wrong name costs no more."""
        shards, images, checked = 0, 0, False

        def hear(outcome: UnitResult) -> None:
            nonlocal shards, images, checked
            shards, images = shards + 1, images + outcome.images
            if not checked and shards >= _FIRST_SHARDS and images >= _ENOUGH_IMAGES:
                self._check_labels(_ENOUGH_IMAGES)
                checked = True

        return hear

    def _check_labels(self, least: int = 1) -> None:
        """Raise JobError where of `least` images or more none has the field of labels or of boxes: it is wrong."""
        wanted, beside = self.config.input, self._beside()
        for key, field, found, without in (
            ("subject_field", wanted.subject_field, beside.labelled, "have faces clustered by likeness"),
            ("boxes_field", wanted.boxes_field, beside.boxed, "hide what the detector finds"),
        ):
            if field and beside.samples >= least and not found:
                names = [name for name, _ in beside.fields.most_common(_MOST_NAMES)]
                raise JobError(
                    f"none of the {beside.samples:,} readable images has the field {field!r} that input.{key} names "
                    f"(they have: {', '.join(sorted(names)) or 'none'}); correct it, or leave it out to {without}"
                )

    @cached_property
    def _consent_photos(self) -> Mapping[str, Any]:
        return consent_photos(self._at_commit)

    @property
    def scan_key(self) -> str:
        return self._scan_key(self._inventory_digest)

    def _scan_key(self, listed: str) -> str:
        models = {name: MODELS[name].sha256 for name in self._scan_models}
        models |= {name: file.digest for name, file in self._detector_files.items()}
        parts = self.config.digest("detector", "limits", "input", "precision")
        more = [digest_of(self._consent_photos)] if self.config.spare else []
        more += [self.config.digest("hide")] if self.config.hide else []
        more += [self.config.digest("clip")] if self.config.clip.segment else []
        return _key("scan", listed, parts, json.dumps(models, sort_keys=True), *more, __version__)

    @property
    def plan_key(self) -> str:
        return self._plan_key(self.scan_key)

    def _plan_key(self, scan_key: str) -> str:
        check = self.keyring.digest(Purpose.PLAN_KEY).hex()
        files = [self.files[name].digest for name in sorted(self.files)]
        return _key("plan", scan_key, self.config.digest("method"), check, *files, __version__)

    def _run_key(self, plan: Plan) -> str:
        store = layout.plan_store(self.stores, plan.key)
        surrogates = store.block_markers(plan.blocks)
        outputs = ("fallback", "keep_fields", "rekey", "outside", "mark", "jpeg_quality", "clip")
        parts = self.config.digest("method", *outputs, "limits", "detector", "precision")
        if self.method.synthesis:
            scanned = layout.scan_store(self.stores, self.scan_key).markers(shard.shard_id for shard in self.shards)
            planned = _key(plan.digest, *sorted(marker["images_sha256"] for marker in scanned))
        else:  # It begins before the scan. The workspace, whose salt is in this key, pins what files hold.
            listed = json.dumps([(shard.shard_id, shard.bytes) for shard in self.shards])
            planned = self._plan_key(self._scan_key(listed))
        # A redaction's plan is the same under every secret; its pseudonyms are not.
        drawn = [self.keyring.digest(Purpose.RUN_KEY).hex(), json.dumps(surrogates, sort_keys=True)]
        hide = [self.config.digest("hide")] if self.config.hide else []
        return _key("render", planned, *drawn, parts, *hide, METHOD_VERSION, __version__)

    def _run_note(self, run_key: str) -> dict[str, Any]:
        """run.json of the release: which job this is, without a place, a person or a time."""
        names = sorted({*self._scan_models, *self._render_models})
        hide = {kind: {"method": how.method, "network": network_of(kind)} for kind, how in self.config.hide.items()}
        return {
            "anonlib": __version__,
            "schema_version": SCHEMA_VERSION,
            "run": run_key,
            "method": self.config.method.released({name: file.digest for name, file in self.files.items()}),
            "synthesis": self.method.synthesis,
            "keep_fields": list(self.config.keep_fields),
            "rekeyed": self.config.rekey,
            "shards": list(self.naming.shards(self.shards)),
            "promised": self.config.policy.promised,
            **({"left_out": left_out} if (left_out := self._listed_out()) else {}),
            **({"hide": hide} if hide else {}),
            "models": {name: {"sha256": MODELS[name].sha256, "licence": MODELS[name].licence} for name in names}
            | {name: {"sha256": file.digest, "licence": file.terms} for name, file in self.files.items()},
        }

    def _rounds(
        self,
        name: str,
        key: str,
        make: MakeStage[Unit],
        units: Sequence[Unit],
        done: Callable[[], set[str]],
        id_of: Callable[[Unit], str],
        hear: Callable[[UnitResult], None] = lambda outcome: None,
    ) -> dict[str, str]:
        """Run what has no marker, up to three times; returns the units still without one and why.

        `hear` gets each outcome, and may raise JobError.
        """

        def report(stage: str, outcome: UnitResult, wanted: int) -> None:
            self.report(stage, outcome, wanted)
            if outcome.details is not None:
                # What went wrong in full goes into the workspace, since no log may hold it.
                try:
                    note_failure(self.stores.workspace, stage, outcome.unit, outcome.details)
                except StorageError as error:
                    logging.getLogger(__name__).warning("the details of %s are not kept: %s", outcome.unit, error)
            if outcome.halts:
                where = f"shard or block {outcome.unit} of its {name} stage"
                raise JobError(f"the job stopped in {where}, and the same command goes on there: {outcome.error}")
            hear(outcome)

        return run_rounds(self.runner, self._about(name), make, units, done, id_of, report, self.ended)

    def _about(self, stage: str) -> Labels:
        return {"stage": stage, "method": self.config.method.name}

    def _part(self, shards: Sequence[Shard]) -> Sequence[Shard]:
        """The shards that are this machine's, where a scheduler has divided the job."""
        number, parts = map(int, (self._parted or "0/1").split("/"))
        return shards[number::parts]

    def _rendered(self) -> set[str]:
        done = layout.release_store(self.stores).done()
        return {shard for name, shard in self.naming.shards(self.shards).items() if name in done}


def _key(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _spread(shards: Sequence[Shard]) -> list[Shard]:
    """The same shards, the last and the middle one behind the first: one part of a dataset may have no labels."""
    order = dict.fromkeys((0, len(shards) - 1, len(shards) // 2, *range(len(shards))))
    return [shards[number] for number in order if 0 <= number < len(shards)]


def _first(doing: str, failed: dict[str, str]) -> str:
    unit = sorted(failed)[0]
    more = "failures/ in the workspace has the details"
    return f"{doing} failed for {len(failed)} units after {ROUNDS} rounds; {unit}: {failed[unit]}; {more}"
