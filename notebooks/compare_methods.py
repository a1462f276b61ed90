# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Which of these releases?
#
# For whoever has made two or three releases of one dataset, by different methods, and must choose. It reads what
# `anonlib audit` wrote into each of them, so nothing is attacked again.
#
# `ANONLIB_REPORTS` holds the paths of the `report.json` files, with a colon between them; `ANONLIB_MEASURE` the
# measure of use that matters most to you.

# %%
import os
from pathlib import Path

import altair as alt
import pyarrow as pa

from anonlib.audit.findings import Attack, AuditReport, Figure

alt.renderers.enable("svg")  # pictures in the notebook itself: no network is needed to see them
paths = [Path(path) for path in os.environ.get("ANONLIB_REPORTS", "").split(os.pathsep) if path]
measure = os.environ.get("ANONLIB_MEASURE", "expression kept")
if not paths:
    raise SystemExit("Set ANONLIB_REPORTS to the report.json of each release, with a colon between them.")
reports: dict[str, AuditReport] = {}
for path in paths:
    report = AuditReport.model_validate_json(path.read_bytes())
    reports[report.release if report.release not in reports else f"{report.release} ({path.parent.name})"] = report

# %% [markdown]
# ## What each is, and whether it passed
#
# Figures can be compared only where the same people were attacked.

# %%
for name, report in reports.items():
    print(f"{name}: {report.method}, {report.claim.text}")
    print(f"  {report.photos:,} photos of {report.people:,} people; {'passed' if report.passed else 'NOT passed'}")
    for line in report.gate:
        if not line.passed:
            print(f"  {line.why}")
if len({(report.people, report.photos) for report in reports.values()}) > 1:
    print("These are not the same people and photos: the differences below may be theirs and not the methods'.")

# %% [markdown]
# ## What an attacker gets
#
# Of each attack the recognizer that gets most, with its 95 % interval by people. Grey ticks are the same attack on
# the clear photos and on photos with a flat ellipse over the face: what is left at the lower tick comes from hair,
# clothes and place.


# %%
def upper(attack: Attack) -> float:
    return -1.0 if attack.released.high is None else attack.released.high


def worst(report: AuditReport) -> list[Attack]:
    """Of each attack and target the one with the highest upper bound."""
    found: dict[tuple[str, str], Attack] = {}
    for attack in report.attacks:
        kind = attack.name, attack.target
        if kind not in found or upper(attack) > upper(found[kind]):
            found[kind] = attack
    return list(found.values())


def row(name: str, what: str, figure: Figure, baselines: dict[str, Figure]) -> dict[str, str | float | None]:
    """A mark of a chart."""
    return {
        "release": name,
        "what": what,
        "value": figure.value,
        "low": figure.low,
        "high": figure.high,
        **{kind: baselines[kind].value if kind in baselines else None for kind in ("clear", "solid")},
    }


def beside(rows: list[dict[str, str | float | None]], columns: int) -> alt.TopLevelMixin:
    """A small panel for each thing that is measured, with its own scale."""
    base = alt.Chart().encode(x=alt.X("release:N", title=None, axis=alt.Axis(labelAngle=-30)))
    marks = (
        *(
            base.mark_tick(color="grey", thickness=2, size=26).encode(y=alt.Y(f"{kind}:Q"))
            for kind in ("clear", "solid")
        ),
        base.mark_rule(strokeWidth=3).encode(
            y=alt.Y("low:Q", title=None), y2="high:Q", color=alt.Color("release:N", title=None)
        ),
        base.mark_point(filled=True, size=70).encode(y="value:Q", color=alt.Color("release:N", title=None)),
    )
    table = pa.Table.from_pylist([one for one in rows if one["value"] is not None])
    panels = alt.layer(*marks, data=table).properties(width=130, height=130)
    return panels.facet(facet=alt.Facet("what:N", title=None, sort=None), columns=columns).resolve_scale(
        y="independent"
    )


beside(
    [
        row(name, f"{attack.name}, {attack.target}", attack.released, attack.baselines)
        for name, report in reports.items()
        for attack in worst(report)
    ],
    columns=4,
)

# %% [markdown]
# ## What use is left
#
# For shares higher is better, for errors and shifts lower; the report says of each measure what it is.

# %%
beside(
    [
        row(name, f"{one.name} ({one.unit})", one.released, one.baselines)
        for name, report in reports.items()
        for one in report.utility
    ],
    columns=4,
)

# %% [markdown]
# ## One against the other
#
# To the left is safe, and the good end of the measure is where its axis says. The most that any attack gets beyond one
# face for everybody is counted by its upper bound, as the policy counts it.

# %%
places = []
for name, report in reports.items():
    excesses = [
        one.identity.high for one in report.attacks if one.identity is not None and one.identity.high is not None
    ]
    wanted = next((one for one in report.utility if one.name == measure), None)
    if wanted is not None and wanted.released.value is not None and excesses:
        place = {"release": name, "excess": max(excesses), "use": wanted.released.value, "passed": report.passed}
        places.append(place | {"better": wanted.better})
better = places[0]["better"] if places else "higher"
alt.Chart(pa.Table.from_pylist(places), width=320, height=260).mark_point(filled=True, size=120).encode(
    x=alt.X("excess:Q", title="most that an attack gets beyond one face for everybody (upper bound)"),
    y=alt.Y("use:Q", title=f"{measure} ({better} is better)", scale=alt.Scale(zero=False)),
    color="release:N",
    shape=alt.Shape("passed:N", scale=alt.Scale(domain=[True, False], range=["circle", "cross"])),
) if places else print(f"no release has both an excess and the measure {measure}")

# %% [markdown]
# ## Decide
#
# A release that did not pass is not a choice: change its job and audit it again. Among those that passed take the one
# that keeps most of what you need; where intervals overlap they are equal, and then the one with the stronger claim
# wins.

# %%
passed = [one for one in places if one["passed"]]
if passed:
    best = (max if better == "higher" else min)(passed, key=lambda one: one["use"])
    print(f"{best['release']}: {measure} {best['use']:.3f}, at most {best['excess']:.1%} beyond one face for everybody")
else:
    print("None of them passed, so none should leave the building as it is. Solid always can.")
