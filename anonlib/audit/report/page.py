"""report.html, one file without scripts that needs no network, and report.pdf, the same page as a tagged PDF.

Its chart is Vega-Lite drawn as SVG that lies in the page, with a text that says what it shows. Text
reaches a contrast of 4.5 and marks of 3 on their grounds (WCAG 2.2, 1.4.3 and 1.4.11); series differ by shape or dash
as well, so that a grey print says the same.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from importlib import import_module, resources
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anonlib.audit.findings import AuditReport
from anonlib.audit.gate import NAMING
from anonlib.audit.report import summary
from anonlib.audit.report.summary import listed, share
from anonlib.config import JobConfig
from anonlib.errors import ImageProblem, JobError
from anonlib.faces import align
from anonlib.media.clip import frames_in
from anonlib.media.sandbox.process import decode_apart
from anonlib.workspace.images import JobImages
from anonlib.workspace.layout import JobStores, open_stores, release_store
from anonlib.workspace.schemas import CLIP, RELEASED
from anonlib.workspace.tables import Row

REQUIRED = ("jinja2", "vl_convert", "weasyprint")
"""The optional packages of the report, as modules."""
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
    "one-face": "#b2451b",
    "one-face-all": "#7a5a3c",
}
_SHAPES = {"released": "circle", "clear": "triangle-up", "blur": "square", "pixelate": "diamond", "solid": "cross",
           "one-face": "triangle-down", "one-face-all": "triangle-right"}  # fmt: skip
_CHART_STYLE = {
    "font": "Liberation Sans, Arial, Helvetica, sans-serif",
    "background": "transparent",
    "aria": False,
    "view": {"stroke": None},
    "axis": {"labelColor": COLOURS["soft"], "titleColor": COLOURS["ink"], "titleFontWeight": "normal",
             "titlePadding": 6, "labelLimit": 150, "domainColor": COLOURS["axis"], "tickColor": COLOURS["axis"],
             "gridColor": COLOURS["rule"]},
    "legend": {"orient": "bottom", "title": None, "labelColor": COLOURS["ink"], "symbolSize": 70, "columnPadding": 16},
}  # fmt: skip

_KEPT = "expression kept"
"""The measure of use that the chart shows: a flat ellipse keeps none of it."""

_ZOOM = 2.4  # sides of the view around an example's face, in the longer side of its box
_MAX_SHARDS = 8  # read for one draw of examples: a shard may be a gigabyte
_TILE = 176  # px

Pixels = NDArray[np.uint8]
Chart = tuple[str, str, str, str]
"""Title, caption, a text that is read out in place of the drawing, and the drawing as SVG."""


def require(name: str) -> ModuleType:
    """The module, which comes with the extra `report`; raises JobError."""
    try:
        return import_module(name)
    except ImportError as error:
        raise JobError(
            f"the report needs {error.name or name}, which is not installed: pip install 'anonlib[report]'"
        ) from None


def write_html(report: AuditReport, examples: Sequence[tuple[bytes, str]] = ()) -> str:
    """The page; the same text for the same arguments. Raises JobError where an extra is missing.

    `examples`: pieces of released photos as JPEG, never of an original, with their captions.
    """
    jinja2, templates = require("jinja2"), resources.files("anonlib.audit.report") / "templates"
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (templates / name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    # A CSS string in which every character but plain letters and digits is an escape.
    footer = f"anonlib audit \u00b7 {report.release}"
    footer = "".join(char if char.isascii() and char.isalnum() else f"\\{ord(char):x} " for char in footer)
    page: str = environment.get_template("report.html.j2").render(
        report=report,
        examples=[(f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}", text) for jpeg, text in examples],
        palette=COLOURS,
        footer=f'"{footer}"',
        charts=list(_trade(report)),
        summary=summary,
    )
    return page


def write_pdf(html: str) -> bytes:
    """The PDF/UA of a page by `write_html`; the same bytes for the same page and fonts. Raises JobError."""
    document: bytes = rendered(html).write_pdf(pdf_variant="pdf/ua-1")
    return document


def rendered(html: str) -> Any:
    """WeasyPrint's document, whose pages can be counted; only data URIs are read. Raises JobError."""
    weasyprint, urls = require("weasyprint"), require("weasyprint.urls")
    fetcher = urls.URLFetcher(allowed_protocols=("data",))
    return weasyprint.HTML(string=html, url_fetcher=fetcher).render(pdf_variant="pdf/ua-1")


def _trade(report: AuditReport) -> Iterator[Chart]:
    """Privacy against use: of the release and of each baseline, what the strongest attack finds and what is kept."""
    naming = [attack for attack in report.attacks if attack.name in NAMING and attack.target == "rank-1"]
    attack, measure = summary.strongest(naming), next((use for use in report.utility if use.name == _KEPT), None)
    if attack is None or measure is None:
        return
    found, kept = ({"released": finding.released} | finding.baselines for finding in (attack, measure))
    places = [(kind, found[kind].value, kept[kind].value) for kind in found if kind in kept]
    known = [(kind, left, use) for kind, left, use in places if left is not None and use is not None]
    each = listed(f"{kind} {share(left)} and {share(use)}" for kind, left, use in known)
    axis = {"type": "quantitative", "scale": {"domain": [0, 1]}, "axis": {"format": ".0%", "tickCount": 5}}
    colour, shape = (
        {
            "field": "kind",
            "type": "nominal",
            "scale": {"domain": [kind for kind, *_ in known], "range": [of[kind] for kind, *_ in known]},
            "legend": {"columns": 4},
        }
        for of in (COLOURS, _SHAPES)
    )
    drawing: str = require("vl_convert").vegalite_to_svg(
        {
            "width": 340,  # px, axes and all: a phone's column
            "height": 250,
            "autosize": {"type": "fit", "contains": "padding"},
            "config": _CHART_STYLE,
            "data": {"values": [{"kind": kind, "found": left, "kept": use} for kind, left, use in known]},
            "mark": {"type": "point", "filled": True, "size": 70},
            "encoding": {
                "x": axis | {"field": "found", "title": f"people found, {attack.name} attack"},
                "y": axis | {"field": "kept", "title": measure.name},
                "color": colour,
                "shape": shape,
            },
        }
    )
    yield (
        "Privacy against use",
        f"What the {attack.name} attack finds ({attack.recognizer}) beside {measure.name}; best is top left.",
        f"People found and {measure.name}: {each}.",
        # A screen reader gets the chart's text in place of the drawing.
        drawing.replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1),
    )


# ---- examples: released faces, drawn at random; no original is opened for them -----------------------------------


def draw_examples(job: JobConfig, format: str, *, faces: int = 12, seed: int = 0) -> list[tuple[bytes, str]]:
    """Up to `faces` of a finished release as JPEG squares with captions, the same for the same seed.

    `format` is the dataset's.
    """
    drawn = draw(open_stores(job), faces, seed)
    images = JobImages(job, format).released([row for row, _ in drawn])
    views = [(_view(job, images.get(row["output_sha256"]), row, face), _caption(face)) for row, face in drawn]
    return [(_jpeg(view), caption) for view, caption in views if view is not None]


def draw(stores: JobStores, faces: int, seed: int) -> list[tuple[Row, Row]]:
    """Released faces of at most 8 shards, in the order of the dataset: their image's row and their own in the manifest.

    Shards are drawn by the number of their faces; up to 8 shards, every face has the same chance.
    """
    release, generator = release_store(stores), np.random.default_rng(seed)
    counts = {str(marker["shard"]): int(marker["faces"]) for marker in release.markers(release.run()["shards"])}
    shards = [shard for shard, count in counts.items() if count]
    if len(shards) > _MAX_SHARDS:
        weight = np.array([counts[shard] for shard in shards], float)
        numbers = generator.choice(len(shards), _MAX_SHARDS, replace=False, p=weight / weight.sum())
        shards = [shards[number] for number in sorted(numbers)]
    rows = (row for shard in shards for row in release.manifest(shard).to_pylist() if row["status"] == RELEASED)
    candidates = [(row, face) for row in rows for face in row["faces"] if face.get("kind") is None]
    numbers = generator.permutation(len(candidates))[:faces]
    return [candidates[number] for number in sorted(numbers)]


def _caption(face: Row) -> str:
    """The method, its k, and the fallback where that is another method, of a face's row in the manifest."""
    method, k, fallback = (face[name] for name in ("method", "k", "fallback"))
    return ", ".join(filter(None, (method, f"k = {k}" if k else "", fallback if fallback != method else "")))


def _jpeg(view: Pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(view).save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def _view(job: JobConfig, data: bytes | None, row: Row, face: Row) -> Pixels | None:
    """A square around the face in its image, or in the frame of its clip that its box is of; None without an image."""
    limits, box, first = job.limits, face["box"], face["first"]
    try:
        if not data or (row["media"] == CLIP and first is None):
            return None
        if row["media"] == CLIP:
            frame = first + int(np.abs(np.reshape(face["boxes"], (-1, 4)) - box).sum(axis=1).argmin())
            rgb = next(shown.rgb for shown in frames_in(data, limits) if shown.index == frame)
        else:
            rgb = decode_apart(data, limits).rgb
    except (ImageProblem, StopIteration):
        return None
    return square_view(rgb, box)


def square_view(rgb: Pixels, box: Sequence[float]) -> Pixels:
    """A square (176, 176, 3), 2.4 times the longer side of a box (x0, y0, x1, y1; px), of an image (H, W, 3).

    It is made smaller or moved to lie in the photo; what is still outside is white.
    """
    x0, y0, x1, y1 = box
    longer, sides = max(x1 - x0, y1 - y0, 1.0), np.array([rgb.shape[1], rgb.shape[0]], np.float32)
    side = min(_ZOOM * longer, max(longer, float(sides.min())))
    centre = np.clip(np.array([x0 + x1, y0 + y1]) / 2, side / 2, sides - side / 2)
    centre = np.where(side >= sides, sides / 2, centre)
    matrix = align.square(np.asarray(centre, np.float32), side, 0.0, _TILE)
    inside = align.crop(np.full_like(rgb, 255), matrix, _TILE)
    return np.where(inside > 127, align.crop(rgb, matrix, _TILE), np.uint8(255)).astype(np.uint8)
