"""The report's three charts: similarity of faces, what the attacks reach, sizes of the classes.

Each is an Altair chart rendered to SVG that lies in the page, with a text that says what it shows. Text reaches a
contrast of 4.5 and marks of 3 on their grounds (WCAG 2.2, 1.4.3 and 1.4.11); series differ by shape or dash as well, so
that a grey print says the same.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from anonlib.audit.findings import AuditReport, Histogram
from anonlib.audit.report import glossary
from anonlib.audit.report.summary import counted, figure_text, listed, share

COLOURS = {
    "paper": "#ffffff",
    "ink": "#1a1f25",
    "soft": "#525c67",
    "rule": "#d3d9df",
    "axis": "#7b858f",
    "pass": "#0d5f2b",
    "pass-ground": "#e5f4ea",
    "fail": "#9c1027",
    "fail-ground": "#fdebed",
    "released": "#0b4f9e",
    "clear": "#1b7a55",
    "blur": "#8a3ab0",
    "pixelate": "#94610a",
    "solid": "#5a636d",
}
_SHAPES = {"released": "circle", "clear": "triangle-up", "blur": "square", "pixelate": "diamond", "solid": "cross"}
_WIDTH = 340  # px, axes and all: a phone's column


@dataclass(frozen=True)
class Chart:
    """`text` is read out in place of the `svg`, so it says what that shows."""

    title: str
    caption: str
    text: str
    svg: str


def all_charts(report: AuditReport) -> list[Chart]:
    """Every chart whose figures the report has, in order."""
    return [*map(_similarity, report.histograms), *_attacks(report), *_class_sizes(report)]


def _similarity(histogram: Histogram) -> Chart:
    import altair as alt

    series = {
        "two people": histogram.impostor,
        "one person": histogram.genuine,
        "released": histogram.released,
    }
    rows = [
        {"kind": kind, "cosine": edge, "share": height}
        for kind, heights in series.items()
        for edge, height in zip(histogram.edges, (*heights, heights[-1]), strict=True)
    ]
    colours = alt.Scale(domain=list(series), range=[COLOURS[name] for name in ("solid", "clear", "released")])
    dashes = alt.Scale(domain=list(series), range=[[2, 2], [6, 3], [1, 0]])
    lines = (
        alt.Chart(alt.InlineData(values=rows))
        .mark_line(interpolate="step-after", strokeWidth=1.8)
        .encode(
            x=alt.X("cosine:Q", title="cosine similarity", scale=alt.Scale(nice=False), axis=alt.Axis(grid=False)),
            y=alt.Y("share:Q", axis=_percent_axis("share of pairs")),
            color=alt.Color("kind:N", scale=colours, sort=None),
            strokeDash=alt.StrokeDash("kind:N", scale=dashes),
        )
    )
    mark = {"x": histogram.threshold, "text": f"accepted from {histogram.threshold:.2f}"}
    threshold = alt.Chart(alt.InlineData(values=[mark])).encode(x="x:Q")
    rule = threshold.mark_rule(color=COLOURS["fail"], strokeWidth=1.5)
    label = threshold.mark_text(color=COLOURS["fail"], y=-8).encode(text="text:N")
    # Shares in the bins that begin at or above the threshold.
    bins = [number for number, edge in enumerate(histogram.edges[:-1]) if edge >= histogram.threshold]
    above = {kind: share(sum(heights[number] for number in bins)) for kind, heights in series.items()}
    return Chart(
        f"Similarity of released faces to their originals, {histogram.recognizer}",
        "Clear pairs of one person and of two, and released faces against their own originals. "
        f"At or above {histogram.threshold:.3f} the recognizer takes a pair for one person.",
        f"Histogram of cosine similarities. At or above the threshold of {histogram.threshold:.3f} lie, by whole bins, "
        f"{above['one person']} of the clear pairs of one person, {above['two people']} of the pairs of two people and "
        f"{above['released']} of the released faces against their originals.",
        _svg(lines + rule + label, 195),
    )


def _attacks(report: AuditReport) -> Iterator[Chart]:
    """A forest plot: of each attack its strongest target and recognizer, with intervals, beside its baselines."""
    import altair as alt

    names = dict.fromkeys(attack.name for attack in report.attacks)
    best = [glossary.strongest(attack for attack in report.attacks if attack.name == name) for name in names]
    attacks = [attack for attack in best if attack is not None]
    if not attacks:
        return
    rows: list[dict[str, Any]] = []
    for attack in attacks:
        label = f"{attack.name}, {attack.target}"
        for kind, figure in ({"released": attack.released} | attack.baselines).items():
            if figure.value is not None:
                low = figure.value if figure.low is None else figure.low
                high = figure.value if figure.high is None else figure.high
                rows.append({"row": label, "kind": kind, "value": figure.value, "low": low, "high": high})
    chances = [
        {"row": f"{attack.name}, {attack.target}", "value": attack.released.chance}
        for attack in attacks
        if attack.released.chance is not None
    ]
    kinds = ["released", *glossary.baseline_order({row["kind"] for row in rows} - {"released"})]
    colours = alt.Scale(domain=kinds, range=[COLOURS.get(kind, COLOURS["ink"]) for kind in kinds])
    shapes = alt.Scale(domain=kinds, range=[_SHAPES.get(kind, "stroke") for kind in kinds])
    y = alt.Y("row:N", title=None, sort=None, scale=alt.Scale(paddingInner=0.25), axis=alt.Axis(grid=False))
    scale, axis = alt.Scale(domain=[0, 1]), _percent_axis("share (95 % interval by person)")
    x = alt.X("value:Q", scale=scale, axis=axis)
    base = alt.Chart(alt.InlineData(values=rows)).encode(
        y=y,
        yOffset=alt.YOffset("kind:N", sort=kinds),
        color=alt.Color("kind:N", scale=colours, sort=None, legend=alt.Legend(columns=3)),
    )
    bars = base.mark_rule(strokeWidth=1.6).encode(x=alt.X("low:Q", scale=scale, axis=axis), x2="high:Q")
    dots = base.mark_point(filled=True, size=42, opacity=1).encode(
        x=x, shape=alt.Shape("kind:N", scale=shapes, sort=None)
    )
    ticks = alt.Chart(alt.InlineData(values=chances)).mark_tick(color=COLOURS["ink"], thickness=1.5).encode(x=x, y=y)
    each = listed(f"{attack.name} {attack.target} {figure_text(attack.released)}" for attack in attacks)
    yield Chart(
        "What the attacks reach",
        "Of each attack the target and recognizer whose interval ends worst; a black tick is guessing.",
        f"Released photos: {each}. The baselines are in the table of attacks.",
        _svg(alt.layer(bars, dots, *([ticks] if chances else [])), 78 + 10 * len(attacks) * len(kinds)),
    )


def _class_sizes(report: AuditReport) -> Iterator[Chart]:
    import altair as alt

    claim = report.claim
    if not claim.class_sizes:
        return
    series = {"people": claim.class_sizes, "effective": claim.effective_sizes}
    rows = [
        {"kind": kind, "size": size, "classes": classes}
        for kind, sizes in series.items()
        for size, classes in sorted(sizes.items())
    ]
    sizes = sorted({*claim.class_sizes, *claim.effective_sizes})
    domain = list(range(sizes[0], sizes[-1] + 1))
    colours = alt.Scale(domain=list(series), range=[COLOURS["released"], COLOURS["pixelate"]])
    opacity = alt.FillOpacity("kind:N", scale=alt.Scale(domain=list(series), range=[1, 0.35]), legend=None)
    size_axis = alt.Axis(labelAngle=0, labelOverlap=True)
    base = alt.Chart(alt.InlineData(values=rows)).encode(
        x=alt.X("size:O", title="people in a class", scale=alt.Scale(domain=domain), axis=size_axis),
        xOffset=alt.XOffset("kind:N", sort=list(series)),
        y=alt.Y("classes:Q", title="classes", axis=alt.Axis(tickCount=5, tickMinStep=1)),
    )
    bars = base.mark_bar().encode(
        color=alt.Color("kind:N", scale=colours, sort=None),
        fillOpacity=opacity,
        stroke=alt.Stroke("kind:N", scale=colours),
    )
    numbers = base.mark_text(dy=-6, fontSize=10).encode(text="classes:Q")
    people, effective = (
        listed(f"{counted(classes, 'class', 'classes')} of {size}" for size, classes in sorted(sizes.items()))
        for sizes in series.values()
    )
    least = f"No class may be smaller than k = {claim.k}. " if claim.k is not None else ""
    yield Chart(
        "Class sizes",
        f"{least}Effective: people who may be one person count once.",
        f"People: {people}. Effective: {effective or 'not measured'}.",
        _svg(bars + numbers if len(domain) <= 8 else bars, 215),
    )


def _percent_axis(title: str) -> Any:
    import altair as alt

    return alt.Axis(title=title, format=".0%", tickCount=5)


def _svg(chart: Any, height: int) -> str:
    """A chart `height` px high."""
    sized = chart.properties(width=_WIDTH, height=height, autosize={"type": "fit", "contains": "padding"})
    ink, quiet = COLOURS["ink"], COLOURS["axis"]
    configured = sized.configure(
        font="Liberation Sans, Arial, Helvetica, sans-serif",
        background="transparent",
        aria=False,
        view={"stroke": None},
        axis={"labelColor": COLOURS["soft"], "titleColor": ink, "titleFontWeight": "normal", "titlePadding": 6,
              "labelLimit": 150, "domainColor": quiet, "tickColor": quiet, "gridColor": COLOURS["rule"]},
        axisY={"domain": False, "ticks": False},
        legend={"orient": "bottom", "title": None, "labelColor": ink, "symbolSize": 70, "columnPadding": 16},
        text={"color": ink},
        bar={"color": COLOURS["released"]},
    )  # fmt: skip
    buffer = io.StringIO()
    configured.save(buffer, format="svg", engine="vl-convert")
    # A screen reader gets the chart's text in place of the drawing.
    return buffer.getvalue().replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1)
