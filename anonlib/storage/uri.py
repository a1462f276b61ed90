"""From what a person writes (a path, file://, s3://) to a Storage, and to the files that a pattern names in it.

A URI may be a file, a folder, a glob (`*`, `?`, `[a-z]`, `**`) or braces (`{00000..00099}`, `{train,val}`) as a shell
would read them. Braces are a promise that every member exists, so a missing one is an error; a glob promises only that
something matches. This is the only place that knows the schemes.
"""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from urllib.parse import unquote, urlsplit

from anonlib.errors import NotFound, StorageError
from anonlib.storage.base import Storage, StorageOptions, StoredObject
from anonlib.storage.local import LocalStorage

NO_OPTIONS = StorageOptions()
BRACE_LIMIT = 1_000_000
STAT_THREADS = 16
_GLOB = re.compile(r"[*?[]")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def normal_uri(uri: str) -> str:
    """s3://bucket/prefix without trailing slashes, or an absolute local path; raises StorageError.

    S3 keys are taken as they are written, without percent-decoding; file:// URIs are decoded.
    """
    if uri.startswith("s3://"):
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        if not bucket:
            raise StorageError(f"'{uri}' names no bucket: write s3://bucket/prefix.")
        prefix = prefix.strip("/")
        return f"s3://{bucket}/{prefix}" if prefix else f"s3://{bucket}"
    if uri.startswith("file://"):
        parts = urlsplit(uri)
        if parts.netloc not in ("", "localhost") or not parts.path:
            raise StorageError(f"'{uri}' is not a local file: write file:///folder/name.")
        return str(Path(unquote(parts.path)))
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", uri):
        raise StorageError(f"'{uri}' has a scheme that is not known here: use a local path or s3://bucket/prefix.")
    if not uri:
        raise StorageError("A location is empty: write a local path or s3://bucket/prefix.")
    return str(Path(uri).expanduser().absolute())


def join_uri(base: str, name: str) -> str:
    """The URI of the file `name` below the folder `base`."""
    return f"{base.rstrip('/')}/{name}"


def split_uri(uri: str) -> tuple[str, str]:
    """(folder, name) of a normal URI; the name is '' for a bucket itself or for '/'."""
    if uri.startswith("s3://") and uri.count("/") == 2:
        return uri, ""
    folder, _, name = uri.rpartition("/")
    return folder or "/", name


def open_storage(uri: str, options: StorageOptions = NO_OPTIONS, *, private: bool = False) -> Storage:
    """The storage whose root is this local path, file:// URI or s3://bucket/prefix.

    `private`: a local folder is for its owner alone; a bucket has its own policies. Nothing is contacted yet, and the
    root need not exist. Raises StorageError if the URI makes no sense.
    """
    place = normal_uri(uri)
    if place.startswith("s3://"):
        # boto3 takes a third of a second to import; local jobs never pay for it.
        from anonlib.storage.s3 import S3Storage

        bucket, _, prefix = place.removeprefix("s3://").partition("/")
        return S3Storage(bucket, prefix, options)
    return LocalStorage(Path(place), private=private)


@dataclass(frozen=True, slots=True)
class UriPattern:
    """One input file: `name` is its path below the folder `base` that all of a URI's files share.

    size is in bytes; etag changes when the content does.
    """

    base: str
    name: str
    size: int
    etag: str

    @property
    def uri(self) -> str:
        return join_uri(self.base, self.name)


def expand(uri: str, options: StorageOptions = NO_OPTIONS) -> list[UriPattern]:
    """The files that a URI names: braces in the order written, everything else sorted by path.

    A local path that exists is taken as it is, whatever signs it contains. Raises StorageError if nothing
    matches or a brace member is missing.
    """
    place = normal_uri(uri)
    literal = place.startswith("/") and Path(place).exists()
    if literal or not (_GLOB.search(place) or len(expand_braces(place)) > 1):
        base, entries = _file_or_folder(place, options)
    else:
        base, pattern = _split_at_magic(place)
        entries = _members(open_storage(base, options), pattern)
    if not entries:
        raise StorageError(f"'{uri}' names no file; check the location and the pattern.")
    # A file that two patterns name is still one file.
    unique = {entry.path: entry for entry in entries}
    return [UriPattern(base, entry.path, entry.size, entry.etag) for entry in unique.values()]


def _file_or_folder(place: str, options: StorageOptions) -> tuple[str, list[StoredObject]]:
    parent, name = split_uri(place)
    if name:
        try:
            return parent, [open_storage(parent, options).stat(name)]
        except NotFound:
            pass
    return place, list(open_storage(place, options).list())


def _split_at_magic(place: str) -> tuple[str, str]:
    """s3://b/2026/{a,b}/*.tar -> (s3://b/2026, {a,b}/*.tar)."""
    first = min(place.find(sign) for sign in "{*?[" if sign in place)
    slash = place.rfind("/", 0, first)
    if place.startswith("s3://") and slash < len("s3://"):
        raise StorageError(f"'{place}' has a pattern in the bucket's name; a pattern can only be below a bucket.")
    return place[:slash] or "/", place[slash + 1 :]


def _members(storage: Storage, pattern: str) -> list[StoredObject]:
    members = expand_braces(pattern)
    with ThreadPoolExecutor(STAT_THREADS) as pool:
        found = list(pool.map(lambda member: _member(storage, member), members))
    missing = [member for member, entries in zip(members, found, strict=True) if not entries]
    if missing and len(members) > 1:
        named = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise StorageError(
            f"{len(missing)} of the {len(members)} members of '{pattern}' do not exist in {storage.uri}: {named}."
        )
    return [entry for entries in found for entry in entries]


def _member(storage: Storage, member: str) -> list[StoredObject]:
    if magic := _GLOB.search(member):
        wanted = glob_regex(member)
        return [entry for entry in storage.list(member[: magic.start()]) if wanted.fullmatch(entry.path)]
    try:
        return [storage.stat(member)]
    except NotFound:
        return list(storage.list(member.rstrip("/") + "/"))


def glob_regex(pattern: str) -> re.Pattern[str]:
    """A shell pattern over '/'-separated paths: `*` and `?` stay inside one component, `**` does not."""
    out, rest = "", pattern
    while rest:
        choice = re.match(r"\[(!?)(\]?[^\]]*)\]", rest)
        if rest.startswith("**/"):
            out, rest = out + "(?:.*/)?", rest[3:]
        elif rest.startswith("**"):
            out, rest = out + ".*", rest[2:]
        elif rest[0] in "*?":
            out, rest = out + {"*": "[^/]*", "?": "[^/]"}[rest[0]], rest[1:]
        elif choice:
            signs = re.sub(r"([\\\[\]^&~|])", r"\\\1", choice[2])
            out, rest = out + f"(?!/)[{'^' if choice[1] else ''}{signs}]", rest[choice.end() :]
        else:
            out, rest = out + re.escape(rest[0]), rest[1:]
    return re.compile(out, re.DOTALL)


def expand_braces(text: str) -> list[str]:
    """The strings that a shell makes of `{1..3}`, `{01..10}`, `{a,b}` and their nestings, in its order.

    Braces that are neither a range nor a list stay as they are. Raises StorageError above BRACE_LIMIT.
    """
    opening = text.find("{")
    while opening >= 0:
        group = _group(text, opening)
        options = _options(group[1]) if group else []
        if group and options:
            tails = expand_braces(text[group[0] :])
            if len(options) * len(tails) > BRACE_LIMIT:
                raise StorageError(f"'{text}' names more than {BRACE_LIMIT:,} files; use a folder or a glob.")
            return [text[:opening] + option + tail for option, tail in product(options, tails)]
        opening = text.find("{", opening + 1)
    return [text]


def _group(text: str, opening: int) -> tuple[int, list[str]] | None:
    """(position after the closing brace, the parts between top-level commas), or None if it never closes."""
    depth, start, parts = 0, opening + 1, []
    for position in range(opening, len(text)):
        sign = text[position]
        depth += (sign == "{") - (sign == "}")
        if depth == 0 or (depth == 1 and sign == ","):
            parts.append(text[start:position])
            start = position + 1
        if depth == 0:
            return start, parts
    return None


def _options(parts: list[str]) -> list[str]:
    if len(parts) > 1:
        return [option for part in parts for option in expand_braces(part)]
    limits = _RANGE.fullmatch(parts[0])
    if limits is None:
        return []
    return list(_numbers(limits[1], limits[2]))


def _numbers(first: str, last: str) -> Iterator[str]:
    low, high = int(first), int(last)
    if abs(high - low) >= BRACE_LIMIT:
        raise StorageError(f"'{{{first}..{last}}}' names more than {BRACE_LIMIT:,} files; use a folder or a glob.")
    padded = any(limit.startswith("0") and len(limit) > 1 for limit in (first, last))
    width = max(len(first), len(last)) if padded else 0
    step = 1 if low <= high else -1
    return (f"{number:0{width}d}" for number in range(low, high + step, step))


def read_file(uri: str, options: StorageOptions) -> bytes:
    """The bytes of one file, on disk or S3; raises StorageError."""
    folder, _, name = uri.rpartition("/")
    return open_storage(folder or ("/" if uri.startswith("/") else "."), options).read(name)
