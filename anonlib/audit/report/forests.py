"""Forest plots: shares with their intervals, the release beside its baselines, and group beside group."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from anonlib.audit.findings import Attack, AuditReport, Figure, Group
from anonlib.audit.report import glossary
from anonlib.audit.report.drawing import Drawing, drawn, percent_axis
from anonlib.audit.report.formatting import listed, said, share
from anonlib.audit.report.palette import use

if TYPE_CHECKING:
    pass

_SHAPES = {"released": "circle", "clear": "triangle-up", "blur": "square", "pixelate": "diamond", "solid": "cross"}


def of_attacks(report: AuditReport) -> Iterator[Drawing]:
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
            rows += [
                _point(figure) | {"row": own, "kind": kind}
                for kind, figure in kinds.items()
                if figure.value is not None
            ]
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
    base = alt.Chart(alt.InlineData(values=list(rows))).encode(
        y=alt.Y("row:N", title=None, sort=None, scale=alt.Scale(paddingInner=0.25), axis=alt.Axis(grid=False)),
        yOffset=alt.YOffset("kind:N", sort=list(kinds)),
        color=alt.Color("kind:N", scale=colours, sort=None, legend=alt.Legend(columns=3)),
    )
    scale, axis = alt.Scale(domain=[0, 1]), percent_axis(title)
    bars = base.mark_rule(strokeWidth=1.6).encode(x=alt.X("low:Q", scale=scale, axis=axis), x2="high:Q")
    dots = base.mark_point(filled=True, size=42, opacity=1).encode(
        x=alt.X("value:Q", scale=scale, axis=axis), shape=alt.Shape("kind:N", scale=shapes, sort=None)
    )
    lanes = len({row["row"] for row in rows}) * len(kinds)
    layers = [*_guessing(chance), bars, dots]
    return drawn(alt.layer(*layers), 62 + 10 * lanes + 16 * -(-len(kinds) // 3))


def _guessing(chance: float | None) -> list[Any]:
    import altair as alt

    if chance is None:
        return []
    data = alt.InlineData(values=[{"value": chance}])
    return [alt.Chart(data).mark_rule(color=use("ink"), strokeDash=[2, 2]).encode(x="value:Q")]


def attacks_by_group(report: AuditReport) -> Iterator[Drawing]:
    """For each attack, the recognizer that goes furthest."""
    for name in dict.fromkeys(one.name for one in report.attacks if one.groups):
        best = glossary.strongest(one for one in report.attacks if one.name == name and one.groups)
        if best is not None:
            title = f"{glossary.meaning(name).title}, {best.target}"
            yield _groups(title, f"By {best.recognizer}, which goes furthest.", best.released, best.groups)


def use_by_group(report: AuditReport) -> Iterator[Drawing]:
    for measure in report.utility:
        if measure.groups and measure.released.value is not None and measure.unit == "share":
            yield _groups(measure.name, "In released photos.", measure.released, measure.groups)


def _groups(title: str, by: str, whole: Figure, groups: Sequence[Group]) -> Drawing:
    import altair as alt

    there = [one for one in groups if one.figure.value is not None]
    rows = [_point(one.figure) | {"row": f"{one.name} (n = {one.figure.count:,})", "by": f"{one.by}"} for one in there]
    top = max([row["high"] for row in rows] + [whole.high or 0.0, 0.01])
    bottom = min([row["low"] for row in rows] + [whole.low or 0.0]) if top > 0.5 else 0.0
    scale = alt.Scale(domain=[bottom, top], nice=True, zero=False)
    base = alt.Chart(alt.InlineData(values=rows)).encode(
        y=alt.Y("row:N", title=None, sort=None, axis=alt.Axis(grid=True, labelLimit=190))
    )
    axis = alt.Axis(title="95 % interval by person", format="~p", tickCount=4)
    x = alt.X("value:Q", scale=scale, axis=axis)
    bars = base.mark_rule(strokeWidth=1.6, color=use("released")).encode(
        x=alt.X("low:Q", scale=scale, axis=axis), x2="high:Q"
    )
    dots = base.mark_point(filled=True, size=50, opacity=1, color=use("released")).encode(x=x)
    line = alt.Chart(alt.InlineData(values=[{"value": whole.value}])).mark_rule(color=use("ink"), strokeDash=[5, 3])
    absent = listed(f"{one.by} {one.name}" for one in groups if one.figure.value is None)
    return Drawing(
        title,
        f"{by} Dashed: all photos, {said(whole)}." + (f" Not measured: {absent}." if absent else ""),
        f"{title}: " + listed(f"{one.by} {one.name} {said(one.figure)}" for one in there) + ".",
        drawn(alt.layer(line.encode(x=x), bars, dots), 56 + 18 * len(rows)),
    )
