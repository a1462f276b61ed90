"""The report's colours, light and dark, in one place: pages name them, charts name them, and paper gets the light ones.

Text reaches a contrast of 4.5 and marks of 3 on their grounds (WCAG 2.2, 1.4.3 and 1.4.11). Series differ by shape or
dash as well, so that a grey print says the same.
"""

from __future__ import annotations

import re

LIGHT = {
    "paper": "#ffffff",
    "panel": "#f4f6f8",
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
DARK = {
    "paper": "#13171c",
    "panel": "#1b2128",
    "ink": "#e9edf1",
    "soft": "#a9b4be",
    "rule": "#37414b",
    "axis": "#84909b",
    "pass": "#7fe0a1",
    "pass-ground": "#12301d",
    "fail": "#ff9da6",
    "fail-ground": "#3b161b",
    "released": "#74b7ff",
    "clear": "#55cfa0",
    "blur": "#d6a6ff",
    "pixelate": "#e5b64a",
    "solid": "#b2bcc5",
}


def use(name: str) -> str:
    """How a page or a chart names a colour."""
    return f"var(--{name})"


def variables(colours: dict[str, str]) -> str:
    """The declarations of a rule."""
    return "".join(f"--{name}:{colour};" for name, colour in colours.items())


def on_paper(html: str) -> str:
    """The same with the light colours written out, for a renderer that knows no variables inside a drawing."""
    return re.sub(r"var\(--([a-z-]+)\)", lambda match: LIGHT.get(match[1], match[0]), html)
