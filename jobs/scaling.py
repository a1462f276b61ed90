"""What a dataset of a given size costs to anonymize: `python jobs/scaling.py`, or with other figures as flags.

Every figure in `Costs` was measured (docs/scaling.md says how, and on what); every figure in `Prices` is an assumption
to be replaced by your own. The tables of docs/scaling.md are what this prints.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from math import ceil
from typing import NamedTuple

from anonlib.stages.people import PORTRAITS_A_DONOR
from anonlib.stages.plan import BLOCK

GIB, TIB = 2**30, 2**40
ACTORS = (64, 256, 1024)
LENDING, DONORS_A_CLASS = 0.6, 6
"""Share of people with a portrait worth averaging, and how many of them a class of k = 5 has."""
WORN = 0.9
"""Faces that are replaced; the others are redacted."""
FACES = (100_000, 1_000_000, 5_000_000, 10_000_000, 130_000_000)


@dataclass(frozen=True)
class Dataset:
    """Photos of `megapixels`, `image_bytes` and `faces` each, a share `with_faces`; `photos` of a person, `a_shard`."""

    images: int = 100_000_000
    megapixels: float = 1.0
    image_bytes: int = 250_000
    faces: float = 1.3
    with_faces: float = 0.75
    photos: float = 5.0
    a_shard: int = 1000

    @property
    def total_faces(self) -> int:
        return round(self.images * self.faces)

    @property
    def shards(self) -> int:
        return ceil(self.images / self.a_shard)

    @property
    def people(self) -> int:
        return round(self.total_faces / self.photos)

    @property
    def classes(self) -> int:
        return round(LENDING * self.people / DONORS_A_CLASS)

    @property
    def portraits(self) -> int:
        """Portraits that the surrogates of all classes are averaged from."""
        return self.classes * DONORS_A_CLASS * PORTRAITS_A_DONOR

    @property
    def tables_read(self) -> float:
        """Shard tables that the blocks of surrogates read: of each block's portraits, in shards at random."""
        portraits = min(self.classes, BLOCK) * DONORS_A_CLASS * PORTRAITS_A_DONOR
        return self.classes / BLOCK * shards_hit(portraits, self.shards)


def shards_hit(portraits: int, shards: int) -> float:
    """The expected number of shards in which so many portraits lie, each in a shard drawn at random."""
    return shards * (1 - (1 - 1 / shards) ** portraits)


@dataclass(frozen=True)
class Costs:
    """CPU milliseconds of one thread, bytes a face, and what the driver needs; measured."""

    decode_a_megapixel: float = 4.8
    encode_a_megapixel: float = 2.8
    detect_a_photo: float = 62.0
    describe_a_face: float = 33.0
    render_a_photo: float = 5.0
    render_a_face: float = 45.0
    plan_a_face: float = 0.44
    table_searched: float = 7.5
    surrogate_a_portrait: float = 25.0
    scanned_bytes_a_face: int = 31_300
    plan_bytes_a_face: int = 8_200
    surrogate_bytes: int = 195_600
    manifest_bytes_a_photo: int = 320
    plan_memory_a_face: int = 1_100
    driver_ms_a_unit: float = 1.3
    driver_bytes_a_unit: int = 1_100
    certificate_bytes_a_person: int = 280
    run_key_bytes_a_class: int = 362
    request_ms: float = 25.0


@dataclass(frozen=True)
class Prices:
    """Dollars; assumptions."""

    vcpu_hour: float = 0.045
    spot_vcpu_hour: float = 0.016
    put: float = 5e-6
    get: float = 4e-7
    gib_month: float = 0.023


class Stage(NamedTuple):
    """A stage's core-hours, bytes read and written, and requests; a `whole` stage runs in one process."""

    name: str
    hours: float
    read: float
    written: float
    puts: float
    gets: float
    whole: bool = False

    def hours_at(self, actors: int) -> float:
        """Hours from its begin to its end with so many actors."""
        return self.hours if self.whole else self.hours / actors


def stages(data: Dataset, costs: Costs) -> list[Stage]:
    """The stages of k-diff with averaged faces."""
    hour = 3_600_000.0
    photos, faces, shards = data.images, data.total_faces, data.shards
    blocks, pixels = ceil(data.classes / BLOCK), photos * data.megapixels
    originals, scanned = photos * data.image_bytes, faces * costs.scanned_bytes_a_face
    planned, worn = faces * costs.plan_bytes_a_face, WORN * faces
    scan = pixels * costs.decode_a_megapixel + photos * costs.detect_a_photo + faces * costs.describe_a_face
    surrogates = data.tables_read * costs.table_searched + data.portraits * costs.surrogate_a_portrait
    render = pixels * (costs.decode_a_megapixel + costs.encode_a_megapixel) + faces * costs.render_a_face
    render += photos * (costs.render_a_photo + costs.detect_a_photo * data.with_faces)
    tables, made = data.tables_read * scanned / shards, data.classes * costs.surrogate_bytes
    sources = originals + planned + worn * costs.surrogate_bytes
    released = originals + photos * costs.manifest_bytes_a_photo
    return [
        Stage("scan", scan / hour, originals, scanned, 3 * shards, shards),
        Stage("plan", faces * costs.plan_a_face / hour, 2 * scanned, planned, shards + blocks, 2 * shards, whole=True),
        Stage("surrogates", surrogates / hour, tables, made, data.classes + blocks, data.tables_read + blocks),
        Stage("render", render / hour, sources, released, 3 * shards, 11 * shards + worn),
    ]


def cost_table(data: Dataset, costs: Costs, prices: Prices) -> list[str]:
    """Markdown: a row for each stage, and the sum."""
    rows = stages(data, costs)
    hours_at = " | ".join(f"h at {actors}" for actors in ACTORS)
    lines = [
        f"| stage | core-hours | {hours_at} | read, TiB | written, TiB | PUT, M | GET, M | $ spot (on demand) |",
        "|---|---:|" + "---:|" * (len(ACTORS) + 5),
    ]
    for name, group in [*((row.name, [row]) for row in rows), ("all", rows)]:
        core_hours, read, written, puts, gets = (
            sum(values) for values in zip(*(row[1:6] for row in group), strict=True)
        )
        requests = puts * prices.put + gets * prices.get
        spot, demand = (core_hours * price + requests for price in (prices.spot_vcpu_hour, prices.vcpu_hour))
        hours = " | ".join(f"{sum(row.hours_at(actors) for row in group):,.1f}" for actors in ACTORS)
        lines.append(
            f"| {name} | {core_hours:,.0f} | {hours} | {read / TIB:,.1f} | {written / TIB:,.1f} "
            f"| {puts / 1e6:,.1f} | {gets / 1e6:,.1f} | {spot:,.0f} ({demand:,.0f}) |"
        )
    kept = sum(row.written for row in rows) / GIB
    return [*lines, "", f"Kept for a month, workspace and release: ${kept * prices.gib_month:,.0f}."]


def plan_table(data: Dataset, costs: Costs) -> list[str]:
    """Markdown: what the plan of so many faces takes, in one process, and what surrogates read after it."""
    lines = ["| faces | plan: GiB | plan: h of one core | surrogates read, TiB |", "|---:|---:|---:|---:|"]
    for faces in FACES:
        part = replace(data, images=round(faces / data.faces))
        plan, surrogates = stages(part, costs)[1:3]
        memory = faces * costs.plan_memory_a_face / GIB
        lines.append(f"| {faces:,} | {memory:,.1f} | {plan.hours:,.2f} | {surrogates.read / TIB:,.1f} |")
    return lines


def limits_table(data: Dataset, costs: Costs) -> list[str]:
    """Markdown: what else grows with the dataset in one process."""
    shards, classes, people, worn = data.shards, data.classes, data.people, WORN * data.total_faces
    seconds = costs.request_ms / 1000
    memory = f"{shards * costs.driver_bytes_a_unit / GIB:.2f} GiB"
    rows = {
        "units of a stage": (shards, f"{memory}, {shards * costs.driver_ms_a_unit / 1000:,.0f} s"),
        "markers of a stage, listed 1,000 a request": (shards, f"{ceil(shards / 1000) * seconds:.0f} s"),
        "markers of a stage, read 16 at a time": (shards, f"{shards * seconds / 16:.0f} s"),
        "digests of surrogates in the run key": (classes, f"{classes * costs.run_key_bytes_a_class / GIB:.1f} GiB"),
        "people in the certificate": (people, f"{people * costs.certificate_bytes_a_person / GIB:.1f} GiB"),
        "surrogates that renderers wait for": (worn, f"{worn * seconds / 3600:,.0f} core-hours"),
    }
    lines = ["| what else grows | how many | what it takes |", "|---|---:|---:|"]
    return [*lines, *(f"| {name} | {count:,.0f} | {cost} |" for name, (count, cost) in rows.items())]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    groups = (Dataset, Costs, Prices)
    for group in groups:
        for field in fields(group):
            kind = int if isinstance(field.default, int) else float
            parser.add_argument(f"--{field.name.replace('_', '-')}", type=kind, default=field.default)
    given = vars(parser.parse_args(arguments))
    data, costs, prices = (group(**{field.name: given[field.name] for field in fields(group)}) for group in groups)
    print("\n".join([*cost_table(data, costs, prices), "", *plan_table(data, costs), "", *limits_table(data, costs)]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
