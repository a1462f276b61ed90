"""From what a person writes (a path, file://, s3://, gs://, abfs://, hf://) to a Storage, and to the files it names.

A URI may be a file, a folder, a glob (`*`, `?`, `[a-z]`, `**`) or braces (`{00000..00099}`, `{train,val}`) as a shell
would read them. Braces are a promise that every member exists, so a missing one is an error; a glob promises only that
something matches. This is the only place that knows the schemes.
"""

import re
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from itertools import product
from pathlib import Path
from urllib.parse import unquote, urlsplit

from anonlib.errors import NotFound, StorageError
from anonlib.storage.base import Storage, StorageOptions, StoredObject
from anonlib.storage.local import IRREGULAR, UNREADABLE, LocalStorage

NO_OPTIONS = StorageOptions()
BRACE_LIMIT = 1_000_000
STAT_THREADS = 16
_SERVICES = {
    "s3": ("s3", "S3Storage", ""),
    "gs": ("gs", "GoogleStorage", "gs"),
    "abfs": ("azure", "AzureStorage", "azure"),
    "az": ("azure", "AzureStorage", "azure"),  # another name of abfs
    "hf": ("hub", "HubStorage", "hf"),
}
"""The module here, its class and the extra of pip that brings its client, by scheme."""
_BUCKET = re.compile(rf"({'|'.join(_SERVICES)})://([^/]*)/?(.*)", re.DOTALL)
_AZURE = re.compile(
    r"([^@]+)@([a-z0-9]{3,24})\.(?:dfs|blob)\.(core\.(?:windows\.net|chinacloudapi\.cn|usgovcloudapi\.net))"
)
_DATASET = re.compile(r"datasets/[^/@]+/[^/@]+(?:@(?:refs/(?:convert|pr)/[^/]+|[^/]+))?")
_SECRET = re.compile(r"[^/]*://([^/]*:[^/]*@|.*[?&](sig|[\w-]*signature)=)", re.DOTALL | re.IGNORECASE)
_PLACES = "a local path, s3://bucket/prefix, gs://, abfs:// or (to read) hf://datasets/owner/name"
_GLOB = re.compile(r"[*?[]")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def parse_uri(uri: str) -> tuple[str, str]:
    """('s3://bucket', 'prefix/name') of an S3 URI, ('', 'absolute/path') of a local one; raises StorageError.

    Keys are taken as they are written, without percent-decoding; file:// URIs are decoded. Azure's places have one
    spelling: abfs://container, or abfs://container@account.dfs.core.windows.net.
    """
    if _SECRET.match(uri):
        raise StorageError(
            "A location that holds a password or a signature is not taken (nor repeated here): leave it out, and set "
            "the credentials in the environment (docs/operations.md)."
        )
    if found := _BUCKET.fullmatch(uri):
        scheme, bucket, prefix = found.groups()
        if scheme == "hf":
            dataset = _DATASET.match(whole := f"{bucket}/{prefix}")
            if dataset is None or whole[dataset.end() :][:1] not in ("", "/"):
                raise StorageError(f"'{uri}' names no dataset: write hf://datasets/owner/name/prefix.")
            bucket, prefix = dataset[0], whole[dataset.end() :]
        if not bucket:
            raise StorageError(f"'{uri}' names no bucket: write {scheme}://bucket/prefix.")
        if scheme in ("abfs", "az"):
            scheme, bucket = "abfs", _container(bucket)
        return f"{scheme}://{bucket}", prefix.strip("/")
    if uri.startswith("file://"):
        file = urlsplit(uri)
        if file.netloc not in ("", "localhost") or not file.path:
            raise StorageError(f"'{uri}' is not a local file: write file:///folder/name.")
        return "", str(Path(unquote(file.path))).removeprefix("/")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", uri):
        raise StorageError(f"'{uri}' has a scheme that is not known here: use {_PLACES}.")
    if not uri:
        raise StorageError(f"A location is empty: write {_PLACES}.")
    return "", str(Path(uri).expanduser().absolute()).removeprefix("/")


def _container(name: str) -> str:
    """A container, and its account if it is named; raises StorageError for a host that may not get credentials."""
    if "@" not in name:
        return name
    if (found := _AZURE.fullmatch(name)) is None:
        raise StorageError(
            "A location at Azure names a host that is no storage account there: write "
            "abfs://container@account.dfs.core.windows.net/prefix. An emulator is named by "
            "AZURE_STORAGE_CONNECTION_STRING alone."
        )
    return f"{found[1]}@{found[2]}.dfs.{found[3]}"


def join_uri(base: str, name: str) -> str:
    """The URI of the file `name` below the folder `base`."""
    return f"{base.rstrip('/')}/{name}"


def open_storage(uri: str, options: StorageOptions = NO_OPTIONS, *, private: bool = False) -> Storage:
    """The storage whose root is this local path, file:// URI or prefix of a bucket.

    `private`: a local folder is for its owner alone; a bucket has its own policies. Nothing is contacted yet, and the
    root need not exist. Raises StorageError if the URI makes no sense.
    """
    root, path = parse_uri(uri)
    if not root:
        return LocalStorage(Path("/", path), private=private)
    # A client takes a third of a second to import; local jobs never pay for it.
    scheme, bucket = root.split("://")
    module, name, extra = _SERVICES[scheme]
    try:
        service = getattr(import_module(f"anonlib.storage.{module}"), name)
    except ModuleNotFoundError as error:
        raise StorageError(f"{scheme}:// needs a client: pip install 'anonlib[{extra}]'.") from error
    storage: Storage = service(bucket, path, options)
    return storage


def expand(uri: str, options: StorageOptions = NO_OPTIONS) -> tuple[str, list[StoredObject]]:
    """A folder, and the files below it that a URI names: braces in the order written, everything else sorted by path.

    A local path that exists is taken as it is, whatever signs it contains. What is no file is listed as well (see
    Storage.list, `foreign`), but for empty folders. Raises StorageError if nothing matches or a brace member is
    missing.
    """
    root, path = parse_uri(uri)
    if root.startswith("hf://"):
        root = open_storage(root, options).pinned()
    if _has_magic(root):
        raise StorageError(f"'{uri}' has a pattern in the bucket's name; a pattern can only be below a bucket.")
    literal = not _has_magic(path) or (not root and Path("/", path).exists())
    # The folder that the names are below ends before the first sign of a pattern.
    first = len(path) if literal else min(path.find(sign) for sign in "{*?[" if sign in path)
    folder, _, _ = path[:first].rpartition("/")
    name = path[len(folder) :].removeprefix("/")
    base = join_uri(root, folder) if folder or not root else root
    storage = open_storage(base, options)
    entries = _file(storage, name) if literal and name else [] if literal else _members(storage, name)
    if literal and not entries:
        base = join_uri(root, path) if path or not root else root
        entries = list(open_storage(base, options).list(foreign=True))
    entries = [entry for entry in entries if not (entry.etag == IRREGULAR and entry.path.endswith("/"))]
    if all(entry.path.endswith("/") and entry.etag != UNREADABLE for entry in entries):
        raise StorageError(f"'{uri}' names no file; check the location and the pattern.")
    # A file that two patterns name is still one file.
    return base, list({entry.path: entry for entry in entries}.values())


def named_parts(uri: str, base: str) -> frozenset[str]:
    """The parts of a URI's path below `base` that say a name or how one begins: `.thumbnails`, `_x*`, and not `*`."""
    below = len(list(filter(None, parse_uri(base)[1].split("/"))))
    paths = (list(filter(None, path.split("/")))[below:] for path in expand_braces(parse_uri(uri)[1]))
    return frozenset(part for path in paths for part in path if part[0] not in "*?[")


def _has_magic(path: str) -> bool:
    return _GLOB.search(path) is not None or len(expand_braces(path)) > 1


def _file(storage: Storage, name: str) -> list[StoredObject]:
    try:
        return [storage.stat(name)]
    except NotFound:
        return []


def _members(storage: Storage, pattern: str) -> list[StoredObject]:
    def member(name: str) -> list[StoredObject]:
        if magic := _GLOB.search(name):
            wanted, parts = glob_regex(name), name.split("/")

            def fits(entry: StoredObject) -> bool:
                if entry.etag != UNREADABLE:
                    return wanted.fullmatch(entry.path) is not None
                # Nobody knows what is in it, so it counts where the pattern reaches into it.
                above = glob_regex("/".join(parts[: entry.path.count("/")]))
                deeper = entry.path.count("/") < len(parts) and above.fullmatch(entry.path[:-1]) is not None
                return "**" in name or deeper

            return [entry for entry in storage.list(name[: magic.start()], foreign=True) if fits(entry)]
        return _file(storage, name) or list(storage.list(name.rstrip("/") + "/", foreign=True))

    names = expand_braces(pattern)
    with ThreadPoolExecutor(STAT_THREADS) as pool:
        found = list(pool.map(member, names))
    missing = [name for name, entries in zip(names, found, strict=True) if not entries]
    if missing and len(names) > 1:
        named = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise StorageError(
            f"{len(missing)} of the {len(names)} members of '{pattern}' do not exist in {storage.uri}: {named}."
        )
    return [entry for entries in found for entry in entries]


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
        end, choices = _choices(text, opening)
        if choices:
            tails = expand_braces(text[end:])
            if len(choices) * len(tails) > BRACE_LIMIT:
                raise StorageError(f"'{text}' names more than {BRACE_LIMIT:,} files; use a folder or a glob.")
            return [text[:opening] + choice + tail for choice, tail in product(choices, tails)]
        opening = text.find("{", opening + 1)
    return [text]


def _choices(text: str, opening: int) -> tuple[int, list[str]]:
    """The position after the brace that closes the one at `opening`, and what the two stand for; none if nothing."""
    depth, start, parts = 0, opening + 1, []
    for position in range(opening, len(text)):
        sign = text[position]
        depth += (sign == "{") - (sign == "}")
        if depth == 0 or (depth == 1 and sign == ","):
            parts.append(text[start:position])
            start = position + 1
        if depth == 0:
            break
    else:
        return start, []
    if len(parts) > 1:
        return start, [choice for part in parts for choice in expand_braces(part)]
    limits = _RANGE.fullmatch(parts[0])
    if limits is None:
        return start, []
    low, high = int(limits[1]), int(limits[2])
    if abs(high - low) >= BRACE_LIMIT:
        raise StorageError(f"'{{{parts[0]}}}' names more than {BRACE_LIMIT:,} files; use a folder or a glob.")
    padded = any(limit.startswith("0") and len(limit) > 1 for limit in limits.groups())
    width = max(map(len, limits.groups())) if padded else 0
    step = 1 if low <= high else -1
    return start, [f"{number:0{width}d}" for number in range(low, high + step, step)]


def read_file(uri: str, options: StorageOptions) -> bytes:
    """The bytes of one file, on disk or S3; raises StorageError."""
    folder, _, name = uri.rpartition("/")
    return open_storage(folder or ("/" if uri.startswith("/") else "."), options).read(name)
