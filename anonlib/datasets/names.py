"""Names and fields of a dataset, which are untrusted text: how names split, which are safe, and which fields pass.

The split into key and extension is WebDataset's: up to the first dot of the last path component (base_plus_ext in
https://github.com/webdataset/webdataset), so its readers group our files as they group the input's. What the job does
not name is dropped. A listed name passes its value whole, unless that is an image or holds one.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

IMAGE_TYPES = {
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "tif": "image/tiff",
    "tiff": "image/tiff",
    "bmp": "image/bmp",
    "gif": "image/gif",
    "ppm": "image/x-portable-pixmap",
}
"""Media types by the endings that an image's name may have."""
IMAGE_EXTENSIONS = frozenset(IMAGE_TYPES)
CONVERTED = frozenset({"bmp", "gif", "ppm", "tif", "tiff"})
"""Endings of images that are released as PNG."""
MAX_NAME = 1024
"""Characters of a member's name; a longer one is a problem of its sample."""
KEY_NAMES = frozenset({"key", "__key__", "id", "image_id", "file_name", "filename", "path"})
"""Where a kept field under one of these names repeats the sample's old key, a new key replaces it there too."""

_IMAGE_START = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|RIFF.{4}WEBP|GIF8[79]a|BM.{4}\0{4}|II[*+]\0|MM\0[*+]|P[1-6][\s#]|"
    rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51|.{4}ftyp(avi[fs]|mif1|msf1|hei[cmsx]|hev[cmx])",
    re.DOTALL,
)
_IMAGE_WITHIN = re.compile(
    rb"\xff\xd8\xff[\xe0\xe1]..(JFIF|Exif)\0|\x89PNG\r\n\x1a\n|RIFF.{4}WEBPVP8|data:image/(?!svg)|"
    rb"(?<![A-Za-z0-9+/])(/9j/|iVBORw0KGgo|R0lGOD[dl]h|UklGR.{6}V0VCUF)[A-Za-z0-9+/\\\r\n]{40}",
    re.DOTALL,
)
"""An image file anywhere in other bytes (a pickle, a zip of stored files, a sidecar), as it is or in base64."""
_HEAD = 32

_PNG = b"\x89PNG\r\n\x1a\n"
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_MEMBER = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)", re.DOTALL)


def suffix_of(name: str) -> str:
    """The lower-case text after the last dot of the last component; '' without one."""
    _, dot, ending = name.rpartition("/")[2].rpartition(".")
    return ending.lower() if dot else ""


def is_apple_double(name: str) -> bool:
    """Whether a path is macOS's companion file (._NAME), which has the ending of a photograph and is none."""
    return name.rsplit("/", 1)[-1].startswith("._")


def begins_as_image(head: bytes) -> bool:
    """Whether a file that begins with these bytes (32 are enough) is an image of a format that is known here."""
    return _IMAGE_START.match(head) is not None


def holds_image(value: Any) -> bool:
    """Whether a field's value is an image file, or holds one: in bytes, in text as base64, in a list or an object."""
    if isinstance(value, str):
        value = value.encode("utf-8", "surrogateescape")
    if isinstance(value, bytes):
        return begins_as_image(value[:_HEAD]) or _IMAGE_WITHIN.search(value) is not None
    if isinstance(value, Mapping):
        return any(map(holds_image, value.values()))
    if not isinstance(value, list | tuple):
        return False
    if len(value) > _HEAD and all(isinstance(number, int) and 0 <= number < 256 for number in value[:_HEAD]):
        return begins_as_image(bytes(value[:_HEAD]))
    return any(map(holds_image, value))


def is_image(name: str) -> bool:
    """Whether a file name ends as an image's does; for an extension alone ask is_image(f"x.{extension}")."""
    return suffix_of(name) in IMAGE_EXTENSIONS


def without_suffix(name: str, suffixes: tuple[str, ...]) -> str:
    """a/b.tar.gz -> a/b for the first of the suffixes that fits (in any case); otherwise the name."""
    for suffix in suffixes:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def split_member(name: str) -> tuple[str, str] | None:
    """dir/a.b.JPG -> ('dir/a', 'b.jpg'); None where WebDataset sees no sample (no dot, or a leading one)."""
    match = _MEMBER.fullmatch(name)
    return (match[1], match[2].lower()) if match else None


def why_unsafe(name: str) -> str | None:
    """Why a name may not be used as a relative path, or None if it may."""
    if name.startswith("/"):
        return "is an absolute path"
    if ".." in name.split("/"):
        return "leads out of its folder by '..'"
    if printable(name) != name:
        return "contains control characters or bytes that are not UTF-8"
    return None


def printable(name: str) -> str:
    """The name with control characters, line separators and stray bytes written as \\x00 escapes."""
    return "".join(
        sign if sign == " " or sign.isprintable() else sign.encode("unicode_escape").decode("ascii") for sign in name
    )


def shortened(key: str) -> str:
    """A key of up to MAX_NAME characters as it is; of a longer one the beginning and 16 hex digits of its SHA-256."""
    if len(key) <= MAX_NAME:
        return key
    return f"{key[:100]}...{hashlib.sha256(key.encode('utf-8', 'surrogateescape')).hexdigest()[:16]}"


def unique_key(key: str, seen: dict[str, int]) -> str:
    """key, or key#2, key#3... whichever is not in `seen` yet; adds it there.

    `seen` holds the last number that was tried for a key, so a million equal keys are not a million searches.
    """
    unique, number = key, seen.get(key, 1)
    while unique in seen:
        number += 1
        unique = f"{key}#{number}"
    seen.setdefault(unique, 1)
    seen[key] = number
    return unique


def belongs_to(key: str, own: str) -> bool:
    """Whether a manifest's key is that of the tar sample or row `own`, or of a further image: own#2, own#3."""
    return key == own or (key.startswith(f"{own}#") and key[len(own) + 1 :].isdecimal())


def shard_id(name: str, suffixes: tuple[str, ...]) -> str:
    """A file-system safe id for the shard file `name`: its name without the usual, last suffix, where that is plain.

    Any other name keeps its safe signs and gets 8 hex digits of its SHA-256, so ids stay unique and stable.
    """
    stem = without_suffix(name, suffixes)
    if name == stem + suffixes[-1] and _PLAIN.fullmatch(stem):
        return stem
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return re.sub(r"[^A-Za-z0-9_-]+", "_", stem)[-80:].lstrip("-") + "-" + digest


def converted(extension: str, image: bytes) -> bool:
    """Whether a released image is a PNG that was another format before, by the extension of its input."""
    return suffix_of(f"x.{extension}") in CONVERTED and image.startswith(_PNG)


def kept_members(
    members: Mapping[str, bytes], keep: frozenset[str], renamed: Mapping[str, str] | None = None
) -> dict[str, bytes]:
    """The members {extension: content} that pass the job's allow-list, in their order.

    A name in the list is a member extension or column (`txt`, `caption`), or one key of a JSON sidecar (`json:caption`,
    or plain `caption`). What holds an image never passes. A JSON sidecar that is not named itself passes key by key;
    with no key left it is left out. renamed: {old spelling of the sample's key: new one}, from key_spellings. Then
    sidecars that pass by their keys become one `json`, with the first value for a key; where the job lists `json`, that
    member stays as it is.
    """
    kept: dict[str, bytes] = {}
    merged: dict[str, Any] = {}
    for extension, content in members.items():
        if extension in keep:
            if not holds_image(content):
                kept[extension] = content
        elif suffix_of(f"x.{extension}") == "json":
            sidecar = json_object(content)
            passing = {
                name: renamed_value(name, value, renamed)
                for name, value in sidecar.items()
                if keep & {name, f"json:{name}"} and not holds_image(value)
            }
            if renamed is not None:
                merged = passing | merged
            elif passing:
                kept[extension] = json.dumps(passing).encode("ascii")
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
    return spellings | {f"{old}.{extension}": f"{new}.{new_extension}" for old in (stem, base) if extension}


def json_object(content: Any) -> dict[str, Any]:
    """The JSON object in a sidecar, or {} if it is not one."""
    if isinstance(content, bytes | str):
        try:
            content = json.loads(content)
        except (ValueError, RecursionError):
            return {}
    return content if isinstance(content, dict) else {}
