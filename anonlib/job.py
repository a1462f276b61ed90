"""A whole run: inventory, scan, plan, surrogates, render, each a loop over what has no marker yet (rounds.py).

A stage gets three rounds; what is left then is quarantined with its reason, so a job always ends in an
answer. A second run of the same job does only what is missing. The run key holds the digest of the plan: a
late face cannot meet a stale plan.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from functools import cached_property, partial, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from anonlib import __version__
from anonlib.codes import Reason
from anonlib.config import JobConfig
from anonlib.datasets import Dataset, Shard, open_input
from anonlib.errors import JobError, StorageError, VerificationError
from anonlib.execution.base import UnitResult
from anonlib.execution.cost import CostLog
from anonlib.execution.retry import with_retries
from anonlib.execution.rounds import DIED, ROUNDS, MakeStage, Runner, Unit, open_runner, run_rounds
from anonlib.execution.telemetry import Labels, Report, Round
from anonlib.faces.detect import detector_file
from anonlib.methods import method_of, models_of
from anonlib.methods.base import USERS_OWN, MethodFile
from anonlib.models.cache import model_bytes
from anonlib.models.catalog import MODELS
from anonlib.models.requirements import check_licences, check_precision
from anonlib.privacy.keys import Keyring, Purpose
from anonlib.stages.certify import certify
from anonlib.stages.plan import Plan, PlanStage
from anonlib.stages.render import RenderStage, quarantine_shard
from anonlib.stages.render_state import METHOD_VERSION
from anonlib.stages.rerender import ActiveDecisions, check_against_markers, finish_invalidation, invalidate_shards
from anonlib.stages.scan import ScanStage, lose
from anonlib.stages.surrogates import SurrogateStage
from anonlib.verification.certificate import VERSION as SCHEMA_VERSION
from anonlib.workspace.decisions import DecisionLog
from anonlib.workspace.inventory import check_inventory, claim_inventory
from anonlib.workspace.layout import (
    PURGED,
    RUN_NOTE,
    JobStores,
    json_bytes,
    open_stores,
    plan_store,
    release_store,
    scan_store,
)
from anonlib.workspace.lease import Lease
from anonlib.workspace.release import Naming
from anonlib.workspace.secrets import bind, open_in_worker, open_pinned, signing_secret
from anonlib.workspace.status import Summary, note_failure

_Given = ParamSpec("_Given")
_Answer = TypeVar("_Answer")


def _leased(verb: Callable[Concatenate[Job, _Given], _Answer]) -> Callable[Concatenate[Job, _Given], _Answer]:
    """A verb of a job that holds the job's lease of the workspace while it is at work."""

    @wraps(verb)
    def held(job: Job, /, *given: _Given.args, **named: _Given.kwargs) -> _Answer:
        with job.lease.held():
            job._begin()
            return verb(job, *given, **named)

    return held


def preflight(config: JobConfig) -> tuple[tuple[str, Callable[[], object]], ...]:
    """What is checked before a job opens anything, by what it is about; each check raises ConfigError."""
    names = {name for models in models_of(config) for name in models}
    return (
        ("licences", lambda: check_licences(names, config)),
        ("models", lambda: check_precision(config)),
    )


class Job:
    """One job, opened: its places, its dataset and its inventory. The verbs are the stages.

    `report` hears of every outcome, `ended` of every round of a stage.
    """

    def __init__(
        self,
        config: JobConfig,
        *,
        report: Report | None = None,
        ended: Callable[[Round], None] | None = None,
        runner: Runner | None = None,
    ) -> None:
        self.config = config
        self.report = report or (lambda stage, outcome, units: None)
        self.ended = ended or (lambda of_stage: None)
        self.method = method_of(config.method)
        self._scan_models, self._render_models = models_of(config)
        for _, check in preflight(config):
            check()
        found_by = detector_file(config.detector)
        self._detector_file = {} if found_by is None else {config.detector.name: MethodFile(found_by, USERS_OWN)}
        self.files = self.method.read_files(config) | self._detector_file
        self._travelling = {name: file.data for name, file in self.files.items() if file.travels}
        self.stores: JobStores = open_stores(config)
        if self.stores.workspace.exists(PURGED):
            raise JobError(f"the workspace {config.workspace.uri} was purged; give this job a new one")
        self.lease = Lease(self.stores.workspace, with_retries)
        self.dataset = open_input(config)
        self.shards = self.dataset.shards()
        self._inventory_digest = check_inventory(config, self.stores, self.shards)
        self.runner = runner or open_runner(config.ray)
        self.spending = CostLog(config.ray, self.stores.workspace)

    def _begin(self) -> None:
        """Write down the list of work, and make salt and secret where there are none. The rest of `Job` only reads."""
        claim_inventory(self.config, self.stores, self.shards)
        if "_pinned" not in self.__dict__:
            self._pinned = open_pinned(self.config, self.stores, make=True)

    @cached_property
    def _pinned(self) -> tuple[JobConfig, Keyring]:
        """The job as its workers get it, and its keyring; raises ConfigError for a workspace that has no salt yet."""
        return open_pinned(self.config, self.stores)

    @property
    def keyring(self) -> Keyring:
        return self._pinned[1]

    @property
    def naming(self) -> Naming:
        return Naming(self.keyring, self.config.rekey)

    @_leased
    def run(self) -> Summary:
        """All stages; raises JobError, ConfigError or StorageError where it cannot go on."""
        self.scan()
        plan = self.make_plan()
        return self.render(plan)

    @_leased
    def scan(self) -> None:
        """faces/ and images/ of every shard; one that fails three times is lost as a whole, and the others go on.

        Raises JobError where the place failed: if workers died of every shard, it is not the shards.
        """
        key = self.scan_key
        models = {name: model_bytes(name) for name in self._scan_models}
        models |= {name: file.data for name, file in self._detector_file.items()}
        make = partial(ScanStage, self.config, self.dataset, self.stores, key, models)
        store = scan_store(self.stores, key)
        failed = self._rounds("scan", key, make, self.shards, store.done, _shard_id)
        if len(failed) == len(self.shards) and DIED in failed.values():
            raise JobError(_first("scanning", failed))
        for shard in self.shards:
            if shard.shard_id in failed:
                lose(shard, failed[shard.shard_id], store)

    @_leased
    def make_plan(self) -> Plan:
        """Subjects, classes, assignments and surrogates; needs a finished scan."""
        missing = {shard.shard_id for shard in self.shards} - scan_store(self.stores, self.scan_key).done()
        if missing:
            raise JobError(f"{len(missing)} of {len(self.shards)} shards are not scanned yet; run `anonlib scan` first")
        with_retries(lambda: bind(self.config, self.stores, self.keyring))
        where = (self.stores, self.scan_key, self.plan_key, self._travelling)
        began, planned = time.monotonic(), plan_store(self.stores, self.plan_key).plan() is not None
        stage = PlanStage(self.config, self.stores, self.keyring, *where[1:])
        plan = with_retries(lambda: stage.run(self.shards))
        if not planned:
            seconds = time.monotonic() - began
            self.spending.add("plan", images=0, busy=seconds, reserved=seconds, gpus=0)
        make = partial(SurrogateStage, self.config, *where)
        failed = self._rounds(
            "surrogates", self.plan_key, make, plan.blocks, plan_store(self.stores, self.plan_key).blocks_done, str
        )
        if failed:
            raise JobError(_first("making surrogates", failed))
        return plan

    @_leased
    def render(self, plan: Plan | None = None) -> Summary:
        """data/, manifest/ and markers of every shard, then the certificate; what fails three times is quarantined.

        Shards that were rendered before a reviewer decided on one of their images are rendered again.
        """
        plan = plan or self.make_plan()
        run_key = self._run_key(plan)
        note = json_bytes(self._run_note(run_key))
        if not self.stores.release.claim(RUN_NOTE, note) and self.stores.release.read(RUN_NOTE) != note:
            raise JobError(
                f"the output {self.config.output.uri} holds a release of another job (its {RUN_NOTE} differs); "
                "give this one another output"
            )
        signing = signing_secret(self.config, self.stores, self.keyring)
        log = DecisionLog(self.stores.workspace, run_key)
        active = ActiveDecisions.of_log(log)
        again = with_retries(
            lambda: invalidate_shards(self.stores, self.shards, self.scan_key, active, self.naming, self.lease)
        )
        keys = {"scan": self.scan_key, "plan": plan.key, "render": run_key}
        models = {name: model_bytes(name) for name in self._render_models} | self._travelling
        check = self.keyring.check()
        make = partial(_make_render, self._pinned[0], self.dataset, self.stores, keys, models, active, check)
        lost = scan_store(self.stores, self.scan_key).lost()
        scanned = [shard for shard in self.shards if shard.shard_id not in lost]
        failed = self._rounds("render", run_key, make, scanned, self._rendered, _shard_id)
        failed |= dict.fromkeys(lost - self._rendered(), Reason.SHARD_UNSCANNED.meaning)
        for shard in self.shards:
            if shard.shard_id in failed:
                self._quarantine(shard, run_key, failed[shard.shard_id], active)
        with_retries(lambda: finish_invalidation(self.stores, self.shards, self.naming))
        try:
            # The decisions as they are now: this run may have slept while a reviewer decided.
            with_retries(
                lambda: check_against_markers(self.stores, self.shards, ActiveDecisions.of_log(log), self.naming, again)
            )
        except VerificationError as error:
            raise JobError(f"the release must not leave: {error}") from None
        try:
            with_retries(lambda: certify(self.config, self.stores, self.keyring, signing, plan.key, plan.blocks))
        except VerificationError as error:
            raise JobError(f"the release gets no certificate, and must not leave: {error}") from None
        return self.summary()

    def summary(self) -> Summary:
        """Counts from the release's markers."""
        markers = release_store(self.stores).markers(self.naming.shards(self.shards))
        return Summary.of(len(self.shards), markers)

    @property
    def scan_key(self) -> str:
        models = {name: MODELS[name].sha256 for name in self._scan_models}
        models |= {name: file.digest for name, file in self._detector_file.items()}
        parts = self.config.digest("detector", "limits", "input")
        return _key("scan", self._inventory_digest, parts, json.dumps(models, sort_keys=True), __version__)

    @property
    def plan_key(self) -> str:
        check = self.keyring.digest(Purpose.PLAN_KEY).hex()
        files = [self.files[name].digest for name in sorted(self.files)]
        return _key("plan", self.scan_key, self.config.digest("method"), check, *files, __version__)

    def _run_key(self, plan: Plan) -> str:
        store = plan_store(self.stores, plan.key)
        surrogates = store.block_markers(plan.blocks)
        parts = self.config.digest("method", "keep_fields", "rekey", "jpeg_quality", "limits", "detector")
        # A redaction's plan is the same under every secret; its pseudonyms are not.
        drawn = [plan.digest, self.keyring.digest(Purpose.RUN_KEY).hex(), json.dumps(surrogates, sort_keys=True)]
        return _key("render", *drawn, parts, METHOD_VERSION, __version__)

    def _run_note(self, run_key: str) -> dict[str, Any]:
        """run.json of the release: which job this is, without a place, a person or a time."""
        names = sorted({*self._scan_models, *self._render_models})
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
    ) -> dict[str, str]:
        """Run what has no marker, up to three times; returns the units still without one and why."""

        def report(stage: str, outcome: UnitResult, wanted: int) -> None:
            self.report(stage, outcome, wanted)
            if outcome.details is not None:
                self._keep_details(stage, outcome)
            if outcome.halts:
                raise JobError(
                    f"the job stopped in shard or block {outcome.unit} of its {name} stage, and the same command "
                    f"goes on there: {outcome.error}"
                )

        def ended(of_stage: Round) -> None:
            gpus = self.config.ray.num_gpus
            self.spending.add(name, images=of_stage.images, busy=of_stage.busy, reserved=of_stage.reserved, gpus=gpus)
            self.ended(of_stage)

        return run_rounds(self.runner, self._about(name), make, units, done, id_of, report, ended)

    def _about(self, stage: str) -> Labels:
        return {"stage": stage, "method": self.config.method.name}

    def _rendered(self) -> set[str]:
        done = release_store(self.stores).done()
        return {shard for name, shard in self.naming.shards(self.shards).items() if name in done}

    def _keep_details(self, stage: str, outcome: UnitResult) -> None:
        """What went wrong in full, into the workspace, since no log may hold it."""
        try:
            note_failure(self.stores.workspace, stage, outcome.unit, outcome.details or "")
        except StorageError as error:
            logging.getLogger(__name__).warning("the details of %s are not kept: %s", outcome.unit, error)

    def _quarantine(self, shard: Shard, run_key: str, why: str, active: ActiveDecisions) -> None:
        scanned = scan_store(self.stores, self.scan_key)
        lost = quarantine_shard(shard, why, self.stores, scanned, run_key, self.naming, active)
        if lost is not None:
            self.runner.meter.count(self._about("render"), lost, lost=True)


def _make_render(
    config: JobConfig,
    dataset: Dataset,
    stores: JobStores,
    keys: dict[str, str],
    models: dict[str, bytes],
    active: ActiveDecisions,
    check: str,
) -> RenderStage:
    """Made in the worker, which reads the secret itself and refuses another than the driver's."""
    return RenderStage(config, dataset, stores, open_in_worker(config, stores, check), keys, models, active)


def _shard_id(shard: Shard) -> str:
    return shard.shard_id


def _key(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _first(doing: str, failed: dict[str, str]) -> str:
    unit = sorted(failed)[0]
    more = "failures/ in the workspace has the details"
    return f"{doing} failed for {len(failed)} units after {ROUNDS} rounds; {unit}: {failed[unit]}; {more}"
