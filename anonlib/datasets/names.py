"""Names from a dataset are strangers' text: which are safe, how they split, and what we call a shard.

The split into key and extension is WebDataset's: up to the first dot of the last path component
(https://github.com/webdataset/webdataset, base_plus_ext), so its readers group our files as they group the
input's.
"""

import hashlib
import re
from collections.abc import Collection

IMAGE_EXTENSIONS = frozenset({"jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "gif", "ppm"})
TAR_SUFFIXES = (".tar.gz", ".tgz", ".tar")
PARQUET_SUFFIXES = (".parquet",)
MAX_NAME = 1024
"""Characters of a member's name; a longer one is a problem of its sample."""

_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_NEW_KEY = re.compile(r"[A-Za-z0-9_-]{1,128}")
_MEMBER = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)", re.DOTALL)


def suffix_of(name: str) -> str:
    """The lower-case text after the last dot of the last component; '' without one."""
    return name.rsplit("/", 1)[-1].rpartition(".")[2].lower() if "." in name.rsplit("/", 1)[-1] else ""


def is_apple_double(name: str) -> bool:
    """Whether a path is macOS's companion file (._NAME), which has the ending of a photograph and is none."""
    return name.rsplit("/", 1)[-1].startswith("._")


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


def shard_id(name: str, suffixes: tuple[str, ...], usual: str) -> str:
    """A file-system safe id for the shard file `name`: its name without the usual suffix where that is plain.

    Any other name keeps its safe signs and gets 8 hex digits of its SHA-256, so ids stay unique and stable.
    """
    stem = without_suffix(name, suffixes)
    if name == stem + usual and _PLAIN.fullmatch(stem):
        return stem
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return re.sub(r"[^A-Za-z0-9_-]+", "_", stem)[-80:].lstrip("-") + "-" + digest


def new_extension(extension: str, listed: Collection[str]) -> str:
    """What a new key's member is called: by its extension as the job lists it, or by the last part of that.

    'angela.b.jpg' -> 'jpg'. Raises ValueError unless that is one of images or `json`.
    """
    last = suffix_of(f"x.{extension}")
    if extension not in listed and last not in IMAGE_EXTENSIONS | {"json"}:
        raise ValueError("a member under a new key must have an extension that the job lists or of an image or JSON")
    return extension if extension in listed else last


def suffix_in(name: str, suffixes: tuple[str, ...]) -> str:
    """The first of the suffixes that a name has (in any case); raises StopIteration where there is none."""
    return next(suffix for suffix in suffixes if name.lower().endswith(suffix))


def check_new_key(key: str) -> str:
    """A new key before it becomes a file name; raises ValueError unless it is [A-Za-z0-9_-]{1,128}."""
    if not _NEW_KEY.fullmatch(key):
        raise ValueError(f"the new key {key!r} must be 1 to 128 letters, digits, '-' or '_'")
    return key
