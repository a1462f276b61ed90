"""Writes docs/job-file.md anew from the keys of anonlib/config.py: `python jobs/job_file.py`."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from anonlib.config import JobConfig, keys, without_none
from anonlib.methods import METHODS
from anonlib.synthesis.textures import TEXTURES

PAGE = Path(__file__).parents[1] / "docs" / "job-file.md"
CHOICES = {"method.name": METHODS, "method.texture": TEXTURES}
"""The values that a key may have, where methods or textures say so."""
_GENERATED = "<!-- What follows is generated"


def page(text: str) -> str:
    """The page with the keys as they are now: all that follows the mark in its `text` is written anew."""
    before, mark, after = text.partition(_GENERATED)
    text = before + mark + after.partition("\n")[0] + "\n"
    sections = dict.fromkeys(key.path.rpartition(".")[0] for key in keys())
    section = None
    for key in sorted(keys(), key=lambda key: [*sections].index(key.path.rpartition(".")[0])):
        of, _, name = key.path.rpartition(".")
        if of != section:
            section = of
            model: Any = JobConfig
            for part in filter(None, section.split(".")):
                model = without_none(model.model_fields[part].annotation)
            about = f"{inspect.cleandoc(model.__doc__)}\n\n" if section else ""
            text += f"\n## {f'`{section}`' if section else 'Without a section'}\n\n{about}"
            text += "| key | flag | default | |\n|---|---|---|---|\n"
        shown = json.dumps(key.default) if isinstance(key.default, bool) else key.default
        default = "required" if key.required else "" if shown in (None, (), {}) else f"`{shown}`"
        literals = get_args(key.type) if get_origin(key.type) is Literal else ()
        choices = ", ".join(f"`{choice}`" for choice in CHOICES.get(key.path, literals))
        described = f"{choices}. {key.description}" if choices else key.description
        text += f"| `{name}` | {f'`{key.flag}`' if key.flag else ''} | {default} | {described} |\n"
    return text


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
