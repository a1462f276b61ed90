"""From a URI to a dataset: which format the names speak of, and the class that reads it."""

from collections import Counter
from collections.abc import Callable
from typing import get_args

from anonlib.datasets.base import FORMAT_NAMES, Dataset, Format, format_of
from anonlib.errors import DatasetError
from anonlib.storage import StorageOptions, UriPattern, expand


def open_dataset(
    uri: str,
    *,
    format: str | None = None,
    options: StorageOptions | None = None,
    image_field: str | None = None,
    key_field: str | None = None,
) -> Dataset:
    """The dataset at a file, folder, glob or brace range; the format is guessed from the names if not given.

    image_field names the member extension (alternatives as 'jpg;png') or the column of the image, key_field
    the column of the key. Raises DatasetError (no format, several, or an unknown one) and StorageError.
    """
    options = options or StorageOptions()
    if format is not None and format not in get_args(Format):
        raise DatasetError(f"The format '{format}' is not known; it is one of {', '.join(get_args(Format))}.")
    sources = expand(uri, options)
    if format is None:
        format = _guess(uri, sources)
    dataset = _class_of(format)(uri, options, image_field, key_field, sources)
    dataset.sources()
    return dataset


def _guess(uri: str, sources: list[UriPattern]) -> Format:
    found = Counter(kind for source in sources if (kind := format_of(source.name)) is not None)
    if not found:
        raise DatasetError(f"'{uri}' contains no tar, Parquet or image file.")
    if len(found) > 1:
        seen = ", ".join(f"{FORMAT_NAMES[kind]}s ({count})" for kind, count in found.items())
        raise DatasetError(f"'{uri}' mixes {seen}; set the format, or give a pattern that names one kind.")
    return next(iter(found))


def _class_of(format: str) -> Callable[..., Dataset]:
    # Each format brings its own libraries; a tar job does not load Arrow's readers.
    if format == "webdataset":
        from anonlib.datasets.webdataset import WebDataset

        return WebDataset
    if format == "parquet":
        from anonlib.datasets.parquet import ParquetDataset

        return ParquetDataset
    from anonlib.datasets.folder import FolderDataset

    return FolderDataset
