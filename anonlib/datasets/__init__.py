"""Shard formats: how photographs and their fields are read, and written back in the same shape.

A release must be usable in the place of its input, so the order, keys, file names and format stay, and only fields that
the job allows pass. A sample that cannot be read is one with a reason. A format is one file here and its line in
DATASETS.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from anonlib.datasets.base import Dataset, Item, Listing, Sample, Shard, ShardWriter, label, values_of
from anonlib.datasets.folder import FolderDataset, is_metadata, may_be_image
from anonlib.datasets.names import counted_kinds
from anonlib.datasets.parquet import ParquetDataset
from anonlib.datasets.webdataset import WebDataset
from anonlib.errors import DatasetError, suggestion
from anonlib.storage import Storage, StorageOptions

if TYPE_CHECKING:
    from anonlib.config import JobConfig

__all__ = [
    "DATASETS",
    "Dataset",
    "Item",
    "Sample",
    "Shard",
    "ShardWriter",
    "format_of",
    "items_of",
    "label",
    "open_dataset",
    "open_input",
    "values_of",
]

DATASETS: dict[str, type[Dataset]] = {"webdataset": WebDataset, "parquet": ParquetDataset, "folder": FolderDataset}


def format_of(name: str) -> str | None:
    """The format that a file belongs to by its name, or None."""
    return next((format for format, dataset in DATASETS.items() if dataset.reads(name)), None)


def items_of(storage: Storage, path: str) -> Iterator[Item]:
    """Everything in one data file (see Dataset.items); a file that no format reads is one item."""
    return DATASETS[format_of(path) or "folder"].items(storage, path)


def open_dataset(
    uri: str,
    *,
    format: str | None = None,
    options: StorageOptions | None = None,
    image_field: str | None = None,
    key_field: str | None = None,
    fields: frozenset[str] | None = None,
) -> Dataset:
    """The dataset at a file, folder, glob or brace range; the format is guessed from the names if not given.

    image_field names the member extension (alternatives as 'jpg;png') or the column of the image, several with commas
    or all as '*'; key_field the column of the key; fields those columns that are read beside them, None for all. Raises
    DatasetError (no format, several, or an unknown one) and StorageError.
    """
    options = options or StorageOptions()
    if format is not None and format not in DATASETS:
        raise DatasetError(f"There is no format '{format}'; {suggestion(format, DATASETS)}")
    listing = Listing.of(uri, options)
    if format is None:
        kinds = {file.path: kind for file in listing.files if (kind := format_of(file.path)) is not None}
        # Beside images a metadata.parquet is one of their sidecars.
        photos = FolderDataset.format in kinds.values()
        found = Counter(kind for path, kind in kinds.items() if not (photos and is_metadata(path)))
        if len(found) > 1:
            seen = ", ".join(f"{DATASETS[kind].noun}s ({count})" for kind, count in found.items())
            raise DatasetError(f"'{uri}' mixes {seen}; set the format, or give a pattern that names one kind.")
        if not found and not any(map(may_be_image, listing.files)):
            left = f" (left out: {counted_kinds(listing.left_out)})" if listing.left_out else ""
            raise DatasetError(f"'{uri}' contains no tar, Parquet or image file{left}.")
        format = next(iter(found), "folder")
    dataset = DATASETS[format](uri, options, image_field, key_field, listing, fields)
    sources = dataset.sources()
    archived, all_asked = dataset.storage.archived(sources)
    if archived:
        number = f"{'' if all_asked else 'At least '}{archived:,} of the {len(sources):,} {dataset.noun}s"
        raise DatasetError(
            f"{number} of '{uri}' are archived (Glacier, Deep Archive or an archive tier of Intelligent-Tiering) and "
            "cannot be read: restore them first (`aws s3api restore-object`, which takes hours), or give a pattern "
            "that leaves them out."
        )
    return dataset


def open_input(job: JobConfig) -> Dataset:
    """The dataset that a job reads; see `open_dataset`."""
    return open_dataset(
        job.input.uri,
        format=job.input.format,
        options=job.storage.input_options,
        image_field=job.input.image_field,
        key_field=job.input.key_field,
        fields=_needed(job.keep_fields, job.input.subject_field, job.input.boxes_field),
    )


def _needed(keep: tuple[str, ...], *read: str | None) -> frozenset[str]:
    """The names of columns that may hold what the job keeps, or reads: its labels and boxes."""
    names = {name.removeprefix("json:") for name in keep} | set(keep)
    for field in filter(None, read):
        plain = field.removeprefix("json:")
        names |= {field, plain, plain.partition(".")[0], "json"}
    return frozenset(names)
