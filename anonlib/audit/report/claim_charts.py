"""What the claim rests on, and which faces are outside it: class sizes, epsilon, reasons of fallbacks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from anonlib.audit.findings import AuditReport
from anonlib.audit.report.drawing import Drawing, drawn
from anonlib.audit.report.formatting import counted, epsilon, listed
from anonlib.audit.report.palette import use

_WORDS = 320  # px that a reason may take
# How far two unit vectors may be apart, in the units of privacy.dp.Cost.
_DIAMETERS = {
    "radian": (math.pi, "angle between two people (radians)"),
    "Euclidean distance": (2.0, "Euclidean distance of two people"),
}


def classes(report: AuditReport) -> Iterator[Drawing]:
    import altair as alt

    claim = report.claim
    if not claim.class_sizes:
        return
    kinds = {"people": claim.class_sizes, "effective": claim.effective_sizes}
    rows: list[dict[str, Any]] = [
        {"kind": kind, "size": size, "classes": classes}
        for kind, sizes in kinds.items()
        for size, classes in sorted(sizes.items())
    ]
    sizes = list(range(min(row["size"] for row in rows), max(row["size"] for row in rows) + 1))
    scale = alt.Scale(domain=list(kinds), range=[use("released"), use("pixelate")])
    base = alt.Chart(alt.InlineData(values=rows)).encode(
        x=alt.X(
            "size:O",
            title="people in a class",
            scale=alt.Scale(domain=sizes),
            axis=alt.Axis(labelAngle=0, labelOverlap=True),
        ),
        xOffset=alt.XOffset("kind:N", sort=list(kinds)),
        y=alt.Y("classes:Q", title="classes", axis=alt.Axis(tickCount=5, tickMinStep=1)),
    )
    bars = base.mark_bar().encode(
        color=alt.Color("kind:N", scale=scale, sort=None),
        fillOpacity=alt.FillOpacity("kind:N", scale=alt.Scale(domain=list(kinds), range=[1, 0.35]), legend=None),
        stroke=alt.Stroke("kind:N", scale=scale),
    )
    numbers = base.mark_text(dy=-6, fontSize=10).encode(text="classes:Q")
    each = listed(
        f"{counted(classes, 'class', 'classes')} of {size}" for size, classes in sorted(claim.class_sizes.items())
    )
    effective = listed(
        f"{counted(classes, 'class', 'classes')} of {size}" for size, classes in sorted(claim.effective_sizes.items())
    )
    yield Drawing(
        "Class sizes",
        (f"No class may be smaller than k = {claim.k}. " if claim.k is not None else "")
        + "Effective: people who may be one person count once.",
        f"People: {each}. Effective: {effective or 'not measured'}.",
        drawn(bars + numbers if len(sizes) <= 8 else bars, 215),
    )


def epsilons(report: AuditReport) -> Iterator[Drawing]:
    """How far a drawn face may shift the odds between two people, by how far apart the two are."""
    import altair as alt

    claim = report.claim
    if claim.epsilon is None:
        return
    far, axis = _DIAMETERS.get(claim.epsilon_unit, (None, "any two people"))
    steps = [step / 20 for step in range(21)]
    rows = [
        {"distance": step * (far or 1.0), "power": claim.epsilon * (1.0 if far is None else step * far) / math.log(10)}
        for step in steps
    ]
    chart = (
        alt.Chart(alt.InlineData(values=rows))
        .mark_line(color=use("released"), strokeWidth=2)
        .encode(
            x=alt.X("distance:Q", title=axis, axis=alt.Axis(grid=False, labels=far is not None, ticks=far is not None)),
            y=alt.Y("power:Q", title="odds shift at most, powers of ten", axis=alt.Axis(tickCount=5)),
        )
    )
    text = (
        f"Epsilon is {epsilon(claim)}: a drawn face may shift the odds between the two people furthest apart by a "
        f"factor of at most 10 to the {rows[-1]['power']:.1f}."
    )
    yield Drawing("Epsilon", text, text, drawn(chart, 210))


def fallbacks(report: AuditReport) -> Iterator[Drawing]:
    import altair as alt

    reasons = sorted(report.counts.fallbacks.items(), key=lambda item: (-item[1], item[0]))
    if not reasons:
        return
    rows = [{"reason": reason, "faces": faces, "text": f"{reason}: {faces:,}"} for reason, faces in reasons]
    base = alt.Chart(alt.InlineData(values=rows)).encode(
        y=alt.Y("reason:N", sort=None, title=None, axis=None, scale=alt.Scale(paddingInner=0.62, paddingOuter=0.5)),
    )
    x = alt.X("faces:Q", title="faces", axis=alt.Axis(tickCount=4, tickMinStep=1, grid=False))
    bars = base.mark_bar().encode(x=x)
    words = base.mark_text(align="left", baseline="bottom", dy=-8, limit=_WORDS).encode(x=alt.datum(0), text="text:N")
    yield Drawing(
        "Why faces fell back",
        f"Of {counted(report.counts.faces, 'face')} {sum(faces for _, faces in reasons):,} did not get what was dealt.",
        listed(f"{reason} {faces:,}" for reason, faces in reasons) + ".",
        drawn(bars + words, 50 + 38 * len(rows)),
    )
