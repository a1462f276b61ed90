"""The report's pictures, each from the report's own figures, each with a sentence for who cannot see it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from anonlib.audit.findings import Attack, Figure, Group, Histogram, Report
from anonlib.audit.report import glossary
from anonlib.audit.report.drawing import Drawing, drawn
from anonlib.audit.report.palette import use
from anonlib.audit.report.words import counted, epsilon, listed, said, share

_SHAPES = {"released": "circle", "clear": "triangle-up", "blur": "square", "pixelate": "diamond", "solid": "cross"}
_DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [4, 1, 1, 1], [1, 4])
_CURVES = ("released", "clear", "blur", "pixelate", "solid", "ink")
_WORDS = 320  # px that a reason may take
# How far two unit vectors may be apart, in the units of privacy.dp.Cost.
_DIAMETERS = {
    "radian": (math.pi, "angle between two people (radians)"),
    "Euclidean distance": (2.0, "Euclidean distance of two people"),
}


def all_of(report: Report) -> list[tuple[str, list[Drawing]]]:
    """Headings with their drawings; a heading without figures is left out."""
    parts = [
        ("How alike released faces are to their originals", [_similarity(one) for one in report.histograms]),
        ("What the attacks reach", list(_forests(report))),
        ("How soon a search finds the person", list(_cmc(report))),
        ("Attacks and use by group", [*_by_group(report), *_use_by_group(report)]),
        ("What the claim rests on, and the faces that fell back", [*_classes(report), *_epsilon(report), *_fallbacks(report)]),
    ]
    return [(heading, drawings) for heading, drawings in parts if drawings]


def _percent_axis(title: str) -> Any:
    import altair as alt

    return alt.Axis(title=title, format=".0%", tickCount=5)


# ---- similarity -----------------------------------------------------------------------------------------------


def _similarity(one: Histogram) -> Drawing:
    import altair as alt

    kinds = {"two people": one.impostor, "one person": one.genuine, "released": one.released}
    rows = [
        {"kind": kind, "cosine": edge, "share": height}
        for kind, heights in kinds.items()
        for edge, height in zip(one.edges, (*heights, heights[-1]), strict=True)
    ]
    colours = alt.Scale(domain=list(kinds), range=[use("solid"), use("clear"), use("released")])
    lines = (
        alt.Chart(alt.Data(values=rows))
        .mark_line(interpolate="step-after", strokeWidth=1.8)
        .encode(
            x=alt.X("cosine:Q", title="cosine similarity", scale=alt.Scale(nice=False), axis=alt.Axis(grid=False)),
            y=alt.Y("share:Q", axis=_percent_axis("share of pairs")),
            color=alt.Color("kind:N", scale=colours, sort=None),
            strokeDash=alt.StrokeDash("kind:N", scale=alt.Scale(domain=list(kinds), range=[[2, 2], [6, 3], [1, 0]])),
        )
    )
    at = alt.Chart(alt.Data(values=[{"x": one.threshold, "text": f"accepted from {one.threshold:.2f}"}])).encode(x="x:Q")
    rule = at.mark_rule(color=use("fail"), strokeWidth=1.5)
    label = at.mark_text(color=use("fail"), y=-8).encode(text="text:N")
    above = _above(one)
    return Drawing(
        one.recognizer,
        "Clear pairs of one person and of two, and released faces against their own originals. "
        f"At or above {one.threshold:.3f} the recognizer takes a pair for one person.",
        f"Histogram of cosine similarities by {one.recognizer}. At or above the threshold of {one.threshold:.3f} lie, "
        f"by whole bins, {share(above['genuine'])} of the clear pairs of one person, {share(above['impostor'])} of the "
        f"pairs of two people and {share(above['released'])} of the released faces against their originals.",
        drawn(lines + rule + label, 195),
    )


def _above(one: Histogram) -> dict[str, float]:
    """Shares in the bins that begin at or above the threshold."""
    first = next((place for place, edge in enumerate(one.edges[:-1]) if edge >= one.threshold), len(one.edges) - 1)
    return {kind: sum(getattr(one, kind)[first:]) for kind in ("genuine", "impostor", "released")}


# ---- forest plots ---------------------------------------------------------------------------------------------


def _forests(report: Report) -> Iterator[Drawing]:
    """One for each attack and target: every recognizer, released and baselines, with intervals."""
    panels: dict[tuple[str, str], list[Attack]] = {}
    for attack in report.attacks:
        if attack.released.value is not None:
            panels.setdefault((attack.name, attack.target), []).append(attack)
    for (name, target), attacks in panels.items():
        rows = []
        for attack in attacks:
            own = attack.recognizer + (" *" if attack.held_out else "")
            kinds = {"released": attack.released} | attack.baselines
            rows += [_point(figure) | {"row": own, "kind": kind} for kind, figure in kinds.items() if figure.value is not None]
        kinds_there = ["released", *glossary.baseline_order({row["kind"] for row in rows} - {"released"})]
        chance = attacks[0].released.chance
        meaning = glossary.meaning(name)
        guessing = f" Dotted: guessing, {share(chance)}." if chance is not None else ""
        star = " * never used by the method." if any(one.held_out for one in attacks) else ""
        each = listed(f"{one.recognizer} {said(one.released)}" for one in attacks)
        yield Drawing(
            f"{meaning.title}, {target}",
            f"{_sentence(meaning.does)} Counted: {glossary.TARGETS.get(target, target)}.{guessing}{star}",
            f"Released photos: {each}. The baselines are in the table of attacks.",
            _forest(rows, kinds_there, chance, f"{target} (95 % interval by person)"),
        )


def _point(figure: Figure) -> dict[str, Any]:
    low = figure.value if figure.low is None else figure.low
    return {"value": figure.value, "low": low, "high": figure.value if figure.high is None else figure.high}


def _sentence(clause: str) -> str:
    return clause[:1].upper() + clause[1:] + ("" if clause.endswith(("?", ".")) else ".")


def _forest(rows: Sequence[dict[str, Any]], kinds: Sequence[str], chance: float | None, title: str) -> str:
    import altair as alt

    colours = alt.Scale(domain=list(kinds), range=[use(kind if kind in _SHAPES else "ink") for kind in kinds])
    shapes = alt.Scale(domain=list(kinds), range=[_SHAPES.get(kind, "stroke") for kind in kinds])
    base = alt.Chart(alt.Data(values=list(rows))).encode(
        y=alt.Y("row:N", title=None, sort=None, scale=alt.Scale(paddingInner=0.25), axis=alt.Axis(grid=False)),
        yOffset=alt.YOffset("kind:N", sort=list(kinds)),
        color=alt.Color("kind:N", scale=colours, sort=None, legend=alt.Legend(columns=3)),
    )
    x = {"scale": alt.Scale(domain=[0, 1]), "axis": _percent_axis(title)}
    bars = base.mark_rule(strokeWidth=1.6).encode(x=alt.X("low:Q", **x), x2="high:Q")
    dots = base.mark_point(filled=True, size=42, opacity=1).encode(
        x=alt.X("value:Q", **x), shape=alt.Shape("kind:N", scale=shapes, sort=None)
    )
    lanes = len({row["row"] for row in rows}) * len(kinds)
    layers = [*_guessing(chance), bars, dots]
    return drawn(alt.layer(*layers), 62 + 10 * lanes + 16 * -(-len(kinds) // 3))


def _guessing(chance: float | None) -> list[Any]:
    import altair as alt

    if chance is None:
        return []
    data = alt.Data(values=[{"value": chance}])
    return [alt.Chart(data).mark_rule(color=use("ink"), strokeDash=[2, 2]).encode(x="value:Q")]


# ---- identification by rank -----------------------------------------------------------------------------------


def _cmc(report: Report) -> Iterator[Drawing]:
    """One for each recognizer: a line for each attack that has a curve."""
    import altair as alt

    curves: dict[str, dict[str, Attack]] = {}
    for attack in report.attacks:
        if attack.curve:
            curves.setdefault(attack.recognizer, {}).setdefault(glossary.meaning(attack.name).title, attack)
    for recognizer, attacks in curves.items():
        rows = [
            {"attack": title, "rank": rank, "share": value}
            for title, attack in attacks.items()
            for rank, value in enumerate(attack.curve, 1)
        ]
        titles = list(attacks)
        colours = [use(_CURVES[place % len(_CURVES)]) for place in range(len(titles))]
        dashes = [_DASHES[place % len(_DASHES)] for place in range(len(titles))]
        chart = (
            alt.Chart(alt.Data(values=rows))
            .mark_line(strokeWidth=1.8)
            .encode(
                x=alt.X("rank:Q", title="rank", axis=alt.Axis(grid=False, tickMinStep=1), scale=alt.Scale(zero=False, nice=False)),
                y=alt.Y("share:Q", axis=_percent_axis("share found by then")),
                color=alt.Color("attack:N", sort=None, scale=alt.Scale(domain=titles, range=colours),
                                legend=alt.Legend(columns=2)),
                strokeDash=alt.StrokeDash("attack:N", sort=None, scale=alt.Scale(domain=titles, range=dashes)),
            )
        )  # fmt: skip
        ends = listed(
            f"{title} {share(one.curve[0])} at rank 1, {share(one.curve[-1])} at rank {len(one.curve)}"
            for title, one in attacks.items()
        )
        yield Drawing(
            recognizer,
            "Share of released photos whose person is among the first r of the gallery (cumulative match curve).",
            f"Cumulative match curves by {recognizer}: {ends}.",
            drawn(chart, 180 + 18 * ((len(titles) + 1) // 2)),
        )


# ---- groups ---------------------------------------------------------------------------------------------------


def _by_group(report: Report) -> Iterator[Drawing]:
    """For each attack, the recognizer that goes furthest."""
    for name in dict.fromkeys(one.name for one in report.attacks if one.groups):
        best = glossary.strongest(one for one in report.attacks if one.name == name and one.groups)
        if best is not None:
            title = f"{glossary.meaning(name).title}, {best.target}"
            yield _groups(title, f"By {best.recognizer}, which goes furthest.", best.released, best.groups)


def _use_by_group(report: Report) -> Iterator[Drawing]:
    for measure in report.utility:
        if measure.groups and measure.released.value is not None and measure.unit == "share":
            yield _groups(measure.name, "In released photos.", measure.released, measure.groups)


def _groups(title: str, by: str, whole: Figure, groups: Sequence[Group]) -> Drawing:
    import altair as alt

    there = [one for one in groups if one.figure.value is not None]
    rows = [
        _point(one.figure) | {"row": f"{one.name} (n = {one.figure.count:,})", "by": f"{one.by}"} for one in there
    ]
    top = max([row["high"] for row in rows] + [whole.high or 0.0, 0.01])
    bottom = min([row["low"] for row in rows] + [whole.low or 0.0]) if top > 0.5 else 0.0
    scale = alt.Scale(domain=[bottom, top], nice=True, zero=False)
    base = alt.Chart(alt.Data(values=rows)).encode(
        y=alt.Y("row:N", title=None, sort=None, axis=alt.Axis(grid=True, labelLimit=190))
    )
    x = {"scale": scale, "axis": alt.Axis(title="95 % interval by person", format="~p", tickCount=4)}
    bars = base.mark_rule(strokeWidth=1.6, color=use("released")).encode(x=alt.X("low:Q", **x), x2="high:Q")
    dots = base.mark_point(filled=True, size=50, opacity=1, color=use("released")).encode(x=alt.X("value:Q", **x))
    line = alt.Chart(alt.Data(values=[{"value": whole.value}])).mark_rule(color=use("ink"), strokeDash=[5, 3])
    absent = listed(f"{one.by} {one.name}" for one in groups if one.figure.value is None)
    return Drawing(
        title,
        f"{by} Dashed: all photos, {said(whole)}." + (f" Not measured: {absent}." if absent else ""),
        f"{title}: " + listed(f"{one.by} {one.name} {said(one.figure)}" for one in there) + ".",
        drawn(alt.layer(line.encode(x=alt.X("value:Q", **x)), bars, dots), 56 + 18 * len(rows)),
    )


# ---- the claim ------------------------------------------------------------------------------------------------


def _classes(report: Report) -> Iterator[Drawing]:
    import altair as alt

    claim = report.claim
    if not claim.class_sizes:
        return
    kinds = {"people": claim.class_sizes, "effective": claim.effective_sizes}
    rows = [
        {"kind": kind, "size": size, "classes": classes}
        for kind, sizes in kinds.items()
        for size, classes in sorted(sizes.items())
    ]
    sizes = list(range(min(row["size"] for row in rows), max(row["size"] for row in rows) + 1))
    scale = alt.Scale(domain=list(kinds), range=[use("released"), use("pixelate")])
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("size:O", title="people in a class", scale=alt.Scale(domain=sizes), axis=alt.Axis(labelAngle=0, labelOverlap=True)),
        xOffset=alt.XOffset("kind:N", sort=list(kinds)),
        y=alt.Y("classes:Q", title="classes", axis=alt.Axis(tickCount=5, tickMinStep=1)),
    )
    bars = base.mark_bar().encode(
        color=alt.Color("kind:N", scale=scale, sort=None),
        fillOpacity=alt.FillOpacity("kind:N", scale=alt.Scale(domain=list(kinds), range=[1, 0.35]), legend=None),
        stroke=alt.Stroke("kind:N", scale=scale),
    )
    numbers = base.mark_text(dy=-6, fontSize=10).encode(text="classes:Q")
    each = listed(f"{counted(classes, 'class', 'classes')} of {size}" for size, classes in sorted(claim.class_sizes.items()))
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


def _epsilon(report: Report) -> Iterator[Drawing]:
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
        alt.Chart(alt.Data(values=rows))
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


def _fallbacks(report: Report) -> Iterator[Drawing]:
    import altair as alt

    reasons = sorted(report.counts.fallbacks.items(), key=lambda item: (-item[1], item[0]))
    if not reasons:
        return
    rows = [{"reason": reason, "faces": faces, "text": f"{reason}: {faces:,}"} for reason, faces in reasons]
    base = alt.Chart(alt.Data(values=rows)).encode(
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



