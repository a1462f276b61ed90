"""From an Altair chart to SVG that lies in the page: its colours follow light and dark, its bytes are the same again.

A drawing is as wide as a phone's column and is set beside others where there is room, so its letters never shrink.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from anonlib.audit.report.palette import use

if TYPE_CHECKING:
    import altair as alt

WIDTH = 340  # px, axes and all
FONT = "Liberation Sans, Arial, Helvetica, sans-serif"


@dataclass(frozen=True)
class Drawing:
    """`text` is read instead of the picture, so it says what the picture shows."""

    title: str
    caption: str
    text: str
    svg: str


def config() -> dict[str, Any]:
    """Vega-Lite's config: quiet axes, nothing but named colours."""
    axis = {
        "labelColor": use("soft"),
        "titleColor": use("ink"),
        "domainColor": use("axis"),
        "tickColor": use("axis"),
        "gridColor": use("rule"),
        "labelFontSize": 11,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
        "labelLimit": 150,
        "titlePadding": 6,
        "labelPadding": 6,
    }
    return {
        "font": FONT,
        "background": "transparent",
        "aria": False,
        "view": {"stroke": None},
        "axis": axis,
        "axisY": {"domain": False, "ticks": False},
        "legend": {
            "orient": "bottom",
            "title": None,
            "labelColor": use("ink"),
            "labelFontSize": 11,
            "symbolSize": 70,
            "symbolStrokeWidth": 2,
            "columnPadding": 16,
            "rowPadding": 2,
            "offset": 8,
        },
        "text": {"color": use("ink"), "fontSize": 11},
        "bar": {"color": use("released")},
    }


def percent_axis(title: str) -> alt.Axis:
    """An axis of shares."""
    import altair as alt

    return alt.Axis(title=title, format=".0%", tickCount=5)


def drawn(chart: alt.LayerChart | alt.Chart | alt.FacetChart, height: int) -> str:
    """The SVG of a chart `height` px high."""
    sized = chart.properties(width=WIDTH, height=height, autosize={"type": "fit", "contains": "padding"})
    buffer = io.StringIO()
    sized.configure(**config()).save(buffer, format="svg", engine="vl-convert")
    # Readers get the drawing's text instead.
    return buffer.getvalue().replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1)
