"""The allow-list of fields, in one place for all formats, and the person's label.

A sidecar may hold names, addresses and coordinates, so what the job does not name is dropped. A name in the
list is a member extension or column (`txt`, `caption`), or one key of a JSON sidecar (`json:caption`, or
plain `caption`). A name passes its value whole: naming an image member promises that it shows nobody.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from anonlib.datasets.base import Sample
from anonlib.datasets.names import is_image, new_extension, suffix_of

FOLDER_PARENT = "folder:parent"

# Where a kept field under one of these names repeats the sample's old key, a new key replaces it there too.
KEY_NAMES = frozenset({"key", "__key__", "id", "image_id", "file_name", "filename", "path"})


def kept_members(
    members: Mapping[str, bytes], keep: frozenset[str], renamed: Mapping[str, str] | None = None
) -> dict[str, bytes]:
    """The members that pass, in their order; a JSON sidecar that is not named itself passes key by key.

    members: {extension: content}. renamed: {old spelling of the sample's key: new one}, from key_spellings.
    A sidecar with no key left, or that is not a JSON object, is left out.
    """
    kept: dict[str, bytes] = {}
    for extension, content in members.items():
        if extension in keep:
            kept[extension] = content
        elif _is_json(extension):
            sidecar = _parsed(content)
            passing = {name: value for name, value in sidecar.items() if keep & {name, f"json:{name}"}}
            if passing:
                passing = {name: renamed_value(name, value, renamed) for name, value in passing.items()}
                kept[extension] = json.dumps(passing).encode("ascii")
    return kept


def under_new_key(members: Mapping[str, bytes], listed: Collection[str]) -> dict[str, bytes]:
    """Kept members by the names that they have under a new key (see new_extension).

    JSON sidecars that are not listed themselves become one `json`, of two values for a key the first; where the job
    lists `json`, that member stays as it is, and what other sidecars say is left out.
    """
    kept: dict[str, bytes] = {}
    merged: dict[str, Any] = {}
    for extension, content in members.items():
        if extension in listed:
            kept[extension] = content
        else:
            new_extension(extension, listed)
            merged = _parsed(content) | merged
    if merged:
        kept.setdefault("json", json.dumps(merged).encode("ascii"))
    return kept


def renamed_value(name: str, value: Any, renamed: Mapping[str, str] | None) -> Any:
    """The value of a kept field, with the sample's old key replaced where the field's name says it is one."""
    if not renamed or name not in KEY_NAMES or not isinstance(value, str):
        return value
    # With more behind its dot it may be in other letters, or have another ending, than the sample's own.
    known = next((old for old in renamed if value.startswith(f"{old}.")), value)
    if value not in renamed and known in renamed:
        return f"{renamed[known]}.{suffix_of(value)}" if is_image(value) else renamed[known]
    return renamed.get(value, value)


def key_spellings(stem: str, extension: str, new: str, new_extension: str = "") -> dict[str, str]:
    """How a sample's fields may repeat its old key (with or without folder, ending) -> what that becomes."""
    base = stem.rpartition("/")[2]
    spellings = {stem: new, base: new}
    return spellings | {f"{one}.{extension}": f"{new}.{new_extension}" for one in (stem, base) if extension}


def label(sample: Sample, subject_field: str) -> str | None:
    """The dataset's own name for the person in a sample, or None if it gives none.

    subject_field is a member extension or column, a JSON key (`json:person` or `person`), either of them with
    dots for nested values, or `folder:parent` for the name of the folder that holds the image.
    """
    if subject_field == FOLDER_PARENT:
        return sample.key.rpartition("/")[0].rpartition("/")[2] or None
    for value in _candidates(sample.fields, subject_field):
        text = _as_label(value)
        if text is not None:
            return text
    return None


def _candidates(fields: Mapping[str, Any], name: str) -> Iterator[Any]:
    if not name.startswith("json:"):
        yield fields.get(name)
        yield _nested(fields, name)
    for extension, content in fields.items():
        if _is_json(extension):
            sidecar = _parsed(content)
            inner = name.removeprefix("json:")
            yield sidecar.get(inner)
            yield _nested(sidecar, inner)


def _nested(value: Any, dotted: str) -> Any:
    for part in dotted.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(part)
    return value


def _as_label(value: Any) -> str | None:
    if isinstance(value, bytes):
        try:
            value = value.decode("utf-8")
        except UnicodeDecodeError:
            return None
    # Tables that went through pandas turn whole numbers into floats where a value was missing.
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str | int) and not isinstance(value, bool):
        return str(value).strip() or None
    return None


def _is_json(extension: str) -> bool:
    return suffix_of("x." + extension) == "json"


def _parsed(content: Any) -> dict[str, Any]:
    """The JSON object in a sidecar, or {} if it is not one."""
    if isinstance(content, bytes | str):
        try:
            content = json.loads(content)
        except (ValueError, RecursionError):
            return {}
    return content if isinstance(content, dict) else {}
