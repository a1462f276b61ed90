"""A folder of image files: no shards of its own, so it is cut into slices of a few hundred files.

An image's key is its path, with the ending, which is unique. A file without an ending is one if it begins as an image
does. Its sidecars are STEM.txt, STEM.json, NAME.txt, NAME.json and NAME.supplemental-metadata.json (Google Takeout,
which cuts that word short), and its row in a `metadata.jsonl`, `.csv` or `.parquet` of its folder or of one above
(Hugging Face's ImageFolder: the column file_name is relative to that folder); a pattern must match them too. The etag
of a slice is a digest over the etags of its files. A file is read as it is: render compares each image with the scan's.
"""

import csv
import hashlib
import io
import json
import posixpath
import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from anonlib.codes import Problem, Reason
from anonlib.datasets import base, names
from anonlib.datasets.base import Content, Dataset, Item, Sample, Shard, ShardWriter
from anonlib.datasets.parquet_footer import UNREADABLE, bounded_batches, open_table
from anonlib.errors import Changed, DatasetError, LinkRefused, StorageError
from anonlib.storage import Storage, StoredObject

SLICE_IMAGES = 256
READ_AHEAD = 16
_ROWS_AT_ONCE = 1024
SIDECARS = ("txt", "json")
FILE_NAME = "file_name"
"""The column of a metadata file that names the image."""
_METADATA = re.compile(r"metadata(-\d{8})?\.(jsonl|csv|parquet)")
_ROW = re.compile(rf"{_METADATA.pattern}\.json")
"""The field of a sample that holds its row of a metadata file."""
_TAKEOUT = tuple("supplemental-metadata"[:length] for length in range(21, 0, -1))
_NUMBERED = re.compile(r"(.*)(\(\d+\))(\.[^./]+)", re.DOTALL)
"""A second file of a name: Takeout calls the sidecar of `a(1).jpg` `a.jpg.supplemental-metadata(1).json`."""


class FolderDataset(Dataset):
    """Image files in a folder and its sub-folders, on disk or S3, with their sidecars."""

    format, noun = "folder", "image"
    _unnamed: set[str] | None = None

    @classmethod
    def reads(cls, name: str) -> bool:
        """See Dataset; by its ending, which says that it is an image."""
        return names.is_media(name)

    @classmethod
    def _items(cls, storage: Storage, path: str) -> Iterator[Item]:
        key = path.removeprefix("data/") if path.startswith("data/") else None
        if key is None or not is_metadata(path):
            yield Item(path, key, names.suffix_of(path), storage.read(path))
            return
        for row in metadata_rows(storage.read(path), path):
            image = image_of(key, row)
            fields = {name: value for name, value in row.items() if name != FILE_NAME}
            yield Item(f"{path}: {image}", image, "json", json.dumps(fields).encode(), odd=image is None)

    def _data(self) -> list[StoredObject]:
        """See Dataset; a file without an ending is there if it begins as an image does."""
        if self._unnamed is None:
            unnamed = [file for file in self.listing().files if may_be_image(file)]
            with ThreadPoolExecutor(READ_AHEAD) as pool:
                begin = list(pool.map(self._begins, unnamed))
            self._unnamed = {file.path for file, begins in zip(unnamed, begin, strict=True) if begins}
        return [file for file in self.listing().files if self.reads(file.path) or file.path in self._unnamed]

    def _begins(self, file: StoredObject) -> bool:
        try:
            with self.storage.open_read(file.path, file.etag) as stream:
                return names.begins_as_media(stream.read(names.MEDIA_HEAD))
        except StorageError as error:
            if not error.of_the_file:
                raise
            return False

    def _used(self) -> set[str]:
        return {path for shard in self.shards() for path in shard.files}

    def shards(self) -> list[Shard]:
        """See Dataset; slices of SLICE_IMAGES images in the order of their paths. Raises DatasetError."""
        files = {file.path: file for file in self.listing().files}
        metadata = defaultdict(list)
        for path in filter(is_metadata, files):
            metadata[path.rpartition("/")[0]].append(path)
        images = sorted(file.path for file in self.sources())
        shards = []
        for start in range(0, len(images), SLICE_IMAGES):
            chosen = images[start : start + SLICE_IMAGES]
            beside = [path for image in chosen for path in sidecars_of(image) if path in files]
            folders = dict.fromkeys(folder for image in chosen for folder in ("", *base.folders_above(image)))
            paths = list(dict.fromkeys([*chosen, *beside, *(path for folder in folders for path in metadata[folder])]))
            entries = [files[path] for path in paths]
            for entry in entries:
                if is_metadata(entry.path) and entry.size > base.MAX_SAMPLE_BYTES:
                    raise DatasetError(
                        f"A metadata file of '{self.base}' is larger than {base.MAX_SAMPLE_BYTES >> 20} MiB; split it "
                        "into one for each sub-folder."
                    )
            size = sum(entry.size for entry in entries)
            about = (self.base, _digest_of(entries), size, self.format, tuple(paths))
            shards.append(Shard(f"files-{start:08d}", *about))
        return shards

    def read(self, shard: Shard, left_out: Counter[str] | None = None) -> Iterator[Sample]:
        """See Dataset; a file that has changed since it was listed is read as it is now."""
        files, images = set(shard.files), _images(shard)
        rows, taken = self._metadata(shard), dict[str, bool]()

        def load(position: int) -> Sample:
            path = images[position]
            sidecars = {sidecar: field for sidecar, field in sidecars_of(path).items() if sidecar in files}
            sample = self._load(position, path, sidecars, taken)
            sample.fields |= rows.get(path, {})
            return sample

        with ThreadPoolExecutor(READ_AHEAD) as pool:
            for start in range(0, len(images), READ_AHEAD):
                for sample in pool.map(load, range(start, min(start + READ_AHEAD, len(images)))):
                    path = images[sample.position]
                    if sample.problem is None and names.is_clip(path):
                        # A clip is copied when its turn comes, and not by the threads that read ahead.
                        content, sample.problem = self._content(path)
                        sample.hold(content)
                    yield sample

    def _load(self, position: int, path: str, sidecars: dict[str, str], taken: dict[str, bool]) -> Sample:
        sample = Sample(names.printable(path), None, names.suffix_of(path), {}, None, position)
        image = None
        if not names.is_clip(path):
            image, sample.problem = self._content(path)
        for sidecar, field in sidecars.items():
            content, problem = self._content(sidecar)
            if problem is not None and problem.reason is Reason.UNREADABLE:
                sample.problem = sample.problem or problem
            if isinstance(content, bytes):
                sample.fields[field] = content
        if unsafe := names.why_unsafe(path):
            sample.problem = Problem(Reason.UNSAFE_NAME, f"the file name {unsafe}")
        elif sample.problem is None and any(self._is_taken(above, taken) for above in base.folders_above(path)):
            sample.problem = Problem(Reason.INSIDE_A_FILE)
        elif names.suffix_of(path) in names.CONVERTED and self.storage.exists(f"{path}.png"):
            sample.problem = Problem(Reason.DUPLICATE_KEY, "it would be released under the name of another image")
        sample.hold(None if sample.problem else image)
        return sample

    def _is_taken(self, path: str, known: dict[str, bool]) -> bool:
        """Whether there is, or will be in the release, a file of this name."""
        old = path.removesuffix(".png")
        return self._is_file(path, known) or (names.suffix_of(old) in names.CONVERTED and self._is_file(old, known))

    def _content(self, path: str) -> tuple[Content | None, Problem | None]:
        """What a file holds, or None and why it is not used."""
        if any(part in ("", ".", "..") for part in path.split("/")):  # no Storage takes it
            return None, Problem(Reason.UNSAFE_NAME, "the name has an empty part, '.' or '..'")
        try:
            entry = self.storage.stat(path)
            most = base.MAX_CLIP_BYTES if names.is_clip(path) else base.MAX_SAMPLE_BYTES
            if entry.size > most:
                return None, Problem(Reason.TOO_LARGE, f"the file is larger than {most >> 20} MiB")
            if names.is_clip(path):
                with self.storage.open_read(path, entry.etag) as stream:
                    return base.content_of(stream, path), None
            return self.storage.read(path, entry.etag), None
        except LinkRefused as error:
            return None, Problem(Reason.LINK, str(error))
        except StorageError as error:
            if not error.of_the_file or isinstance(error, Changed):
                raise
            return None, Problem(Reason.UNREADABLE, str(error))

    def _metadata(self, shard: Shard) -> dict[str, dict[str, bytes]]:
        """{image: its field of a metadata file}; the nearest file above that names it counts."""
        images, found = set(_images(shard)), dict[str, dict[str, bytes]]()
        for path in sorted(filter(is_metadata, shard.files), key=lambda path: path.count("/")):
            content, problem = self._content(path)
            if problem is not None and problem.reason is Reason.UNREADABLE:
                raise StorageError(f"A metadata file of many photos is at fault. {problem}", path=path)
            for row in metadata_rows(_bytes(content), path):
                if (image := image_of(path, row)) in images:
                    found[image] = {f"{path.rpartition('/')[2]}.json": json.dumps(row).encode("ascii")}
        return found

    def output_path(self, shard: Shard, name: str | None = None) -> str:
        """The folder of the release that mirrors the input; each file has its own path in outputs()."""
        return "data"

    def writer(
        self, shard: Shard, local_path: Path, keep_fields: frozenset[str], name: str | None = None
    ) -> ShardWriter:
        """See Dataset; `local_path` becomes a folder of the slice's files.

        A metadata file that several slices have a part in becomes one a slice, with the slice's number in its name; a
        Parquet one becomes JSON lines, whose bytes do not depend on the version of Arrow.
        """
        parts, images = {}, set(_images(shard))
        for path in filter(is_metadata, shard.files if name is None else ()):
            others = (image_of(path, row) for row in metadata_rows(_bytes(self._content(path)[0]), path))
            shared = any(image not in images and self._is_file(image, {}) for image in others if image)
            plain = re.sub(r"\.parquet$", ".jsonl", path)
            ending = f"{shard.shard_id.rpartition('-')[2]}.{names.suffix_of(plain)}"
            parts[path] = f"{path.rpartition('/')[0]}/metadata-{ending}".removeprefix("/") if shared else plain
        # `txt` in the list also allows NAME.txt, which is a member `jpg.txt` here.
        kinds = [*keep_fields.intersection(SIDECARS)]
        kinds += [f"{word}.json" for word in _TAKEOUT if "json" in keep_fields]
        named = {f"{ending}.{kind}" for kind in kinds for ending in names.MEDIA_EXTENSIONS}
        return FolderShardWriter(local_path, self.output_path(shard), keep_fields | named, parts)


def _digest_of(entries: Iterable[StoredObject]) -> str:
    """A digest over the paths, sizes and etags of files."""
    digest = hashlib.sha256()
    for entry in entries:
        digest.update(f"{entry.path}\0{entry.size}\0{entry.etag}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _bytes(content: Content | None) -> bytes:
    return content if isinstance(content, bytes) else b""


def may_be_image(file: StoredObject) -> bool:
    """Whether only its first bytes tell whether a file is an image or a clip."""
    return not names.suffix_of(file.path) and file.size > 0


def is_metadata(path: str) -> bool:
    """Whether a file has rows for the images of its folder and of those below."""
    return _METADATA.fullmatch(path.rpartition("/")[2]) is not None


def metadata_rows(content: bytes, path: str) -> list[dict[str, Any]]:
    """The rows of a metadata file as JSON has them; a line or row that cannot be read is left out."""
    if path.endswith(".parquet"):
        rows: list[dict[str, Any]] = []
        with suppress(*UNREADABLE, ValueError), open_table(io.BytesIO(content)) as table:
            for batch in bounded_batches(table, _ROWS_AT_ONCE):
                for index in range(batch.num_rows):
                    with suppress(ValueError, OverflowError):  # a date that Python does not have
                        rows += batch.slice(index, 1).to_pylist()
        return [json.loads(json.dumps(row, default=_as_text)) for row in rows]
    text = content.decode("utf-8-sig", "replace")
    if path.endswith(".jsonl"):
        return [row for line in text.split("\n") if (row := names.json_object(line))]
    try:
        return [{name: value for name, value in row.items() if name} for row in csv.DictReader(io.StringIO(text))]
    except csv.Error:
        return []


def _as_text(value: Any) -> str | None:
    """A date or decimal; of bytes nothing, which may be an image."""
    return None if isinstance(value, bytes) else str(value)


def metadata_bytes(rows: Iterable[dict[str, Any]], path: str) -> bytes:
    """The file of such rows; a CSV has the columns of all rows."""
    rows = list(rows)
    if path.endswith(".jsonl"):
        return "".join(f"{json.dumps(row)}\n" for row in rows).encode("ascii")
    text = io.StringIO()
    writer = csv.DictWriter(text, dict.fromkeys(name for row in rows for name in row), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def image_of(path: str, row: dict[str, Any]) -> str | None:
    """The image that a row of the metadata file at `path` is of, None if it names none."""
    name = row.get(FILE_NAME)
    if not isinstance(name, str) or not name or name.startswith("/") or ".." in name.split("/"):
        return None
    return posixpath.normpath(posixpath.join(path.rpartition("/")[0], name))


def _stem(path: str) -> str:
    ending = names.suffix_of(path)
    return path[: -len(ending) - 1] if ending else path


def _images(shard: Shard) -> list[str]:
    return [path for path in shard.files if names.is_media(path) or not names.suffix_of(path)]


def sidecars_of(image: str) -> dict[str, str]:
    """{where a sidecar of an image may be: the field that it becomes}: under its stem, and behind its whole name."""
    stem = _stem(image)
    paths = [f"{name}.{kind}" for name in (stem, image) for kind in SIDECARS]
    paths += [f"{image}.{word}.json" for word in _TAKEOUT]
    found = {path: path[len(stem) + 1 :] for path in paths}
    if numbered := _NUMBERED.fullmatch(image):
        first, number, ending = numbered.groups()
        found |= {f"{first}{ending}.{word}{number}.json": f"{ending[1:]}.{word}.json" for word in _TAKEOUT}
    return found


class FolderShardWriter(ShardWriter):
    """A folder at `local_path` with the images and kept sidecars under their paths, or under new keys.

    `metadata`: {path of a metadata file: its path in the release}.
    """

    def __init__(
        self, local_path: Path, release_path: str, keep_fields: frozenset[str], metadata: dict[str, str]
    ) -> None:
        super().__init__(local_path, release_path)
        self._keep, self._metadata = keep_fields, metadata
        # An attempt that was killed here may have left its folder.
        shutil.rmtree(self._temporary, ignore_errors=True)
        self._temporary.mkdir()
        self._names: dict[str, None] = {}
        self._rows: dict[str, list[dict[str, Any]]] = defaultdict(list)

    def _entry(self, sample: Sample, image: bytes | Path, key: str | None) -> dict[str, Any]:
        stem, ending, renamed = _stem(sample.key), names.suffix_of(sample.key), None
        head = base.head_of(image)
        changed = names.converted(ending, head)
        # The whole old name stays before the new ending, so that a.bmp and a.png are two files.
        name = f"{sample.key}.png" if changed else sample.key
        if key is not None:
            new = "png" if changed else ending or names.media_ending(head)
            renamed = names.key_spellings(stem, ending, key, new)
            stem, name = key, f"{key}.{new}"
        kept = names.kept_members(sample.fields, self._keep, renamed)
        entry: dict[str, Any] = {name: image}
        for extension, content in kept.items():
            if key is None and _ROW.fullmatch(extension):
                entry |= self._metadata_entry(sample, name, extension, names.json_object(content))
            else:
                entry[f"{stem}.{extension}"] = content
        return entry

    def _metadata_entry(self, sample: Sample, name: str, extension: str, kept: dict[str, Any]) -> dict[str, Any]:
        """{path of a metadata file in the release: the row of an image that is called `name` there}."""
        below = posixpath.normpath(names.json_object(sample.fields[extension])[FILE_NAME])
        folder = sample.key[: -len(below)]
        path = f"{folder}{extension.removesuffix('.json')}"
        return {self._metadata[path]: {FILE_NAME: name.removeprefix(folder)} | kept}

    def _add(self, position: int, entry: dict[str, Any]) -> None:
        for name, content in entry.items():
            if isinstance(content, dict):
                self._rows[name].append(content)
            else:
                self._write(name, content)

    def _finish(self) -> None:
        for name, rows in self._rows.items():
            self._write(name, metadata_bytes(rows, name))

    def _write(self, name: str, content: bytes | Path) -> None:
        path = self._temporary / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            shutil.move(content, path)
        else:
            path.write_bytes(content)
        self._names[name] = None

    def _outputs(self) -> list[tuple[str, Path]]:
        return [(f"{self._release_path}/{name}", self._path / name) for name in self._names]
