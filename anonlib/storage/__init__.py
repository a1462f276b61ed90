"""Where files live: a folder or a bucket behind one small set of verbs.

A job must never leave half a file under a final name, and two workers must never both believe that they
finished a shard. So there are two ways to write, each atomic on disk and in a bucket: `publish` (replace as a whole)
and `claim` (create only if absent), with `create` for a claim that the same bytes satisfy too. Credentials come only
from the clients' usual environment and are never held by our objects, so a pickled storage carries none to a worker.
"""

from anonlib.storage.base import OURS, Probe, Storage, StorageOptions, StoredObject
from anonlib.storage.uri import expand, join_uri, open_storage, parse_uri, read_file

__all__ = [
    "OURS",
    "Probe",
    "Storage",
    "StorageOptions",
    "StoredObject",
    "expand",
    "join_uri",
    "open_storage",
    "parse_uri",
    "read_file",
]
