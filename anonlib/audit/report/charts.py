"""The report's pictures, each from the report's own figures, each with a sentence for who cannot see it."""

from __future__ import annotations

from collections.abc import Iterator

from anonlib.audit.findings import Attack, AuditReport, Histogram
from anonlib.audit.report import claim_charts, forests, glossary
from anonlib.audit.report.drawing import Drawing, drawn, percent_axis
from anonlib.audit.report.formatting import listed, share
from anonlib.audit.report.palette import use

_DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [4, 1, 1, 1], [1, 4])
_CURVES = ("released", "clear", "blur", "pixelate", "solid", "ink")


def all_of(report: AuditReport) -> list[tuple[str, list[Drawing]]]:
    """Headings with their drawings; a heading without figures is left out."""
    parts = [
        ("How alike released faces are to their originals", [_similarity(one) for one in report.histograms]),
        ("What the attacks reach", list(forests.of_attacks(report))),
        ("How soon a search finds the person", list(_cmc(report))),
        ("Attacks and use by group", [*forests.attacks_by_group(report), *forests.use_by_group(report)]),
        (
            "What the claim rests on, and the faces that fell back",
            [*claim_charts.classes(report), *claim_charts.epsilons(report), *claim_charts.fallbacks(report)],
        ),
    ]
    return [(heading, drawings) for heading, drawings in parts if drawings]


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
        alt.Chart(alt.InlineData(values=rows))
        .mark_line(interpolate="step-after", strokeWidth=1.8)
        .encode(
            x=alt.X("cosine:Q", title="cosine similarity", scale=alt.Scale(nice=False), axis=alt.Axis(grid=False)),
            y=alt.Y("share:Q", axis=percent_axis("share of pairs")),
            color=alt.Color("kind:N", scale=colours, sort=None),
            strokeDash=alt.StrokeDash("kind:N", scale=alt.Scale(domain=list(kinds), range=[[2, 2], [6, 3], [1, 0]])),
        )
    )
    at = alt.Chart(alt.InlineData(values=[{"x": one.threshold, "text": f"accepted from {one.threshold:.2f}"}])).encode(
        x="x:Q"
    )
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


# ---- identification by rank -----------------------------------------------------------------------------------


def _cmc(report: AuditReport) -> Iterator[Drawing]:
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
            alt.Chart(alt.InlineData(values=rows))
            .mark_line(strokeWidth=1.8)
            .encode(
                x=alt.X("rank:Q", title="rank", axis=alt.Axis(grid=False, tickMinStep=1),
                        scale=alt.Scale(zero=False, nice=False)),
                y=alt.Y("share:Q", axis=percent_axis("share found by then")),
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
