"""From what a person writes (a path, file://, s3://) to a Storage; the only place that knows the schemes."""

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from anonlib.errors import StorageError
from anonlib.storage.base import Storage, StorageOptions
from anonlib.storage.local import LocalStorage

NO_OPTIONS = StorageOptions()


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
