"""The contract of every shard format, so that the pipeline is one loop.

A shard is the unit of work and of commitment: it is read as a stream in bounded memory, and written to a local file
that appears only when it is whole. A sample without an image in the output is absent there; its row in the manifest
says why. Under new keys samples come in the order of these keys, since the order of names tells names.
"""

import io
import pickle
import re
import shutil
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from types import TracebackType
from typing import Any, BinaryIO, ClassVar, Self

from anonlib.codes import Note, Problem, Reason
from anonlib.datasets import names
from anonlib.errors import AccessDenied, DatasetError, NotAFile, NotFound
from anonlib.storage import OURS, Storage, StorageOptions, StoredObject, join_uri, local, open_storage
from anonlib.storage.base import safe_path
from anonlib.storage.scratch import SpooledFile
from anonlib.storage.uri import expand, named_parts

# A larger tar member or image file is a problem of its sample, found without loading it.
MAX_SAMPLE_BYTES = 256 << 20
MAX_CLIP_BYTES = 32 << 30
"""The same of a clip, which is copied to local disk and never held in memory."""
FOLDER_PARENT = "folder:parent"
_HERE = "the shard in the temporary folder of this machine"
_NEW_KEY = re.compile(r"[A-Za-z0-9_-]{1,128}")


@dataclass(frozen=True, slots=True)
class Shard:
    """One unit of work, as the inventory keeps it.

    shard_id is unique in the dataset, stable, and safe as a file name. etag is that of the file, or a digest over the
    files of a folder slice, whose paths below its root are `files`.
    """

    shard_id: str
    uri: str
    etag: str
    bytes: int
    format: str
    files: tuple[str, ...] = ()


@dataclass(slots=True)
class Sample:
    """One photograph or clip with its fields, or the reason why there is none.

    key is the dataset's own and unique in its shard. image_field is the member extension (lower case, without dot) or
    the column. fields are the other members (bytes) or columns (Python values) without images, before any allow-list.
    With a problem image is None; of a clip it is None, too, and `clip` a local file that lasts as long as the sample.
    position counts images from 0 in the shard. part_of: where images may share fields, the number and the key of their
    tar sample or row; then the first has the key KEY, the others KEY#2, KEY#3. place: where the image is in a list of
    images, and how many the list holds. spelling: extensions whose letters the input writes otherwise.
    """

    key: str
    image: bytes | None
    image_field: str
    fields: dict[str, Any] = field(default_factory=dict)
    problem: Problem | None = None
    position: int = -1
    part_of: tuple[int, str] | None = None
    place: tuple[int, int] = (0, 1)
    notes: tuple[Note, ...] = ()
    spelling: dict[str, str] = field(default_factory=dict)
    spooled: SpooledFile | None = None

    @property
    def clip(self) -> Path | None:
        """The local copy of a clip."""
        return None if self.spooled is None else self.spooled.path

    @property
    def content(self) -> bytes | None:
        """The bytes of its image, or of its clip, which are mapped."""
        return self.image if self.spooled is None else self.spooled.content

    def hold(self, content: "Content | None") -> None:
        """Take an image or a clip, whichever this is."""
        self.image, self.spooled = None, None
        if isinstance(content, bytes) and names.clip_kind(content[: names.MEDIA_HEAD]):
            content = SpooledFile(io.BytesIO(content))
        if isinstance(content, SpooledFile):
            self.spooled = content
        else:
            self.image = content

    @property
    def row(self) -> int:
        """The number of the tar sample or row that the image is part of."""
        return self.position if self.part_of is None else self.part_of[0]

    @property
    def own_key(self) -> str:
        """The key of the tar sample or row that the image is part of."""
        return self.key if self.part_of is None else self.part_of[1]

    def parts(self, images: Sequence[tuple[str, Any, int, int]], number: int, seen: dict[str, int]) -> Iterator[Self]:
        """A sample an image, of a sample's images: (image_field, content, place and length of a list)."""
        for count, (name, image, place, length) in enumerate(images, 1):
            wanted = self.key if count == 1 else f"{self.key}#{count}"
            key = wanted if count == 1 else names.unique_key(wanted, seen)
            problem = None if key == wanted else Problem(Reason.DUPLICATE_KEY, f"the key {wanted!r} is in this shard")
            sample = replace(self, key=key, image_field=name, problem=problem)
            sample.part_of, sample.place = (number, self.key), (place, length)
            sample.hold(None if problem else image)
            yield sample


Content = bytes | SpooledFile
"""An image or another member in memory, or a clip on local disk."""


def content_of(stream: BinaryIO, name: str) -> Content:
    """What a stream holds: bytes, or the copy of a clip; the `name` tells a clip that is empty or damaged."""
    head = stream.read(names.MEDIA_HEAD)
    if names.is_clip(name, head):
        return SpooledFile(stream, head)
    return head + stream.read(MAX_SAMPLE_BYTES)  # a name may promise a clip; cut off, an image is over its limit


def head_of(media: bytes | Path) -> bytes:
    """The first bytes of a released image or clip."""
    if isinstance(media, bytes):
        return media[: names.MEDIA_HEAD]
    with media.open("rb") as file:
        return file.read(names.MEDIA_HEAD)


@dataclass(frozen=True, slots=True)
class Item:
    """A part of a data file that a leak scanner must open: a tar member, a Parquet cell, a file, or what is around it.

    `content`: bytes, of a clip a mapped file, or a cell's value. `odd`: our writers never leave such a thing.
    """

    where: str
    key: str | None
    name: str
    content: Any
    odd: bool = False


@dataclass(frozen=True, slots=True)
class Listing:
    """The objects that a URI names below `base`: `files` that may be data by their names, and what else there is.

    `left_out` counts objects that are no data in any format, by kind (names.LEFT_OUT).
    """

    base: str
    files: list[StoredObject]
    left_out: Counter[str]

    @classmethod
    def of(cls, uri: str, options: StorageOptions) -> "Listing":
        """Raises StorageError, also for a folder that may not be entered, or a link to one that leads out of `base`."""
        base, entries = expand(uri, options)
        named, storage = named_parts(uri, base), open_storage(base, options)
        found = cls(base, [], Counter())
        for entry in entries:
            kind = names.why_left_out(entry.path, named, base.rstrip("/").rpartition("/")[2])
            if entry.etag == local.UNREADABLE:
                if kind is None:
                    raise local.closed_folder(join_uri(base, entry.path).rstrip("/"), entry.path)
                found.left_out["unreadable folder"] += 1
            elif kind is not None:
                found.left_out[kind] += 1
            elif entry.etag == local.LINKED_FOLDER:
                # Inside the base its files are listed at their real place.
                with suppress(NotFound):
                    storage.stat(entry.path)
            elif entry.path.endswith("/"):
                found.left_out["folder mark"] += 1
            elif entry.etag == local.IRREGULAR:
                found.left_out["no file"] += 1
            else:
                found.files.append(entry)
        return found


class ShardWriter(ABC):
    """Writes a shard beside its final local path; `close` makes it appear there, an exception removes it.

    A format writes `_temporary`, and enters the files that it opens into `_files`.
    """

    def __init__(self, local_path: Path, release_path: str) -> None:
        self._path, self._release_path = local_path, release_path
        self._temporary = local_path.with_name(f"{OURS}{local_path.name}")
        self._files = ExitStack()
        self._last = -1
        self._closed = False
        self._spool: Any = None
        self._waiting: dict[str, int] = {}
        self._open: tuple[int, Any] | None = None
        self._clips: Path | None = None
        with local.as_sentence("write", _HERE):
            local_path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, sample: Sample, image: bytes | Path | None, key: str | None = None) -> None:
        """Add a sample with its new image bytes, under a new key if one is given; call in input order.

        A clip is a local file, which is moved away.

        The images of one sample or row are written together. `close` writes samples with new keys, sorted by key, and
        each image becomes a sample of its own: keys that belong together tell of each other. With image None the
        sample is left out. Raises ValueError if the order is broken, the key is not [A-Za-z0-9_-]{1,128}, or a sample
        with a problem comes with an image; StorageError if the disk fails.
        """
        if sample.position != -1:
            if sample.position <= self._last:
                raise ValueError(f"sample {sample.key!r} comes out of order")
            self._last = sample.position
        if image is None:
            return
        if sample.problem is not None:
            raise ValueError(f"sample {sample.key!r} has a problem and may not be written: {sample.problem}")
        if key is not None and not _NEW_KEY.fullmatch(key):
            raise ValueError(f"the new key {key!r} must be 1 to 128 letters, digits, '-' or '_'")
        with local.as_sentence("write", _HERE):
            entry = self._entry(sample, self._taken(image) if isinstance(image, Path) else image, key)
            if key is None:
                if self._open is not None and self._open[0] == sample.row:
                    self._open = (sample.row, self._joined(self._open[1], entry))
                    return
                self._add_open()
                self._open = (sample.row, entry)
                return
            if self._spool is None:
                # On disk until all are there, in a file without a name, which no kill leaves behind.
                self._spool = self._files.enter_context(TemporaryFile(dir=self._path.parent))  # noqa: SIM115
            self._waiting[key] = self._spool.tell()
            pickle.dump(entry, self._spool)

    def _taken(self, clip: Path) -> Path:
        """The clip where it lies until it is written."""
        if self._clips is None:
            self._clips = Path(self._files.enter_context(TemporaryDirectory(prefix=OURS, dir=self._path.parent)))
        return Path(shutil.move(clip, self._clips / str(self._last)))

    def _add_open(self) -> None:
        if self._open is not None:
            self._add(*self._open)
            self._open = None

    def close(self) -> None:
        """Finish the files; nothing exists at the final local path before. Raises StorageError."""
        with local.as_sentence("write", _HERE):
            self._add_open()
            for number, key in enumerate(sorted(self._waiting)):
                self._spool.seek(self._waiting[key])
                self._add(number, pickle.load(self._spool))
            self._finish()
            self._files.close()
            if self._temporary.exists():
                shutil.rmtree(self._path, ignore_errors=True)  # the folder of an attempt that was killed
                self._temporary.replace(self._path)
        self._closed = True

    def outputs(self) -> list[tuple[str, Path]]:
        """(path in the release, local file) of all that was written; raises ValueError before close."""
        if not self._closed:
            raise ValueError("the shard is not closed yet")
        return self._outputs()

    def _outputs(self) -> list[tuple[str, Path]]:
        return [(self._release_path, self._path)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            try:
                if not self._closed:
                    self.close()
            except BaseException:
                self._remove()
                raise
            return
        self._remove()

    def _remove(self) -> None:
        """Take back what was written."""
        # On a full disk closing fails as well, and these files are thrown away.
        with suppress(OSError):
            self._files.close()
        for place in (self._temporary, self._path):
            if place.is_dir():
                shutil.rmtree(place)
            else:
                place.unlink(missing_ok=True)

    @abstractmethod
    def _entry(self, sample: Sample, image: bytes | Path, key: str | None) -> Any:
        """The parts of a sample that are to be written, and no others, under its own names or under the new key."""

    @abstractmethod
    def _add(self, position: int, entry: Any) -> None:
        """Write an entry; positions count in the input, or where keys are new in the output, and grow."""

    def _joined(self, first: Any, second: Any) -> Any:
        """The entry of two images of one sample."""
        return first | second

    def _finish(self) -> None:  # noqa: B027
        """Write the samples that are still in memory, before the files are closed."""


class Dataset(ABC):
    """The files of one format that a URI names. Picklable: a worker gets the location, not the list.

    `noun`: what a data file is called. `media_type`: of a data file, None where each data file is an image or sidecar.
    `suffixes` of its names, the usual one last. `damage`: what items() raises where a file is damaged.
    `listing`: what the URI names, of every format. `fields`: names that the job keeps or takes labels from: no other
    column need be read; None: all.
    """

    format: ClassVar[str]
    noun: ClassVar[str]
    media_type: ClassVar[str | None] = None
    suffixes: ClassVar[tuple[str, ...]] = ()
    damage: ClassVar[tuple[type[Exception], ...]] = (OSError, ValueError)

    def __init__(
        self,
        uri: str,
        options: StorageOptions,
        image_field: str | None,
        key_field: str | None,
        listing: Listing,
        fields: frozenset[str] | None = None,
    ) -> None:
        self.uri, self.options, self.base = uri, options, listing.base
        self.image_field, self.key_field, self.fields = image_field, key_field, fields
        self._listing: Listing | None = listing
        self.storage = open_storage(self.base, options)
        self.storage.judges = True

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_listing": None}

    def sources(self) -> list[StoredObject]:
        """The files of this format, in the order of the URI; raises DatasetError if there is none."""
        found = self._data()
        if not found:
            raise DatasetError(f"'{self.uri}' contains no {self.noun}.")
        if all(file.etag == local.REFUSED_LINK for file in found):
            raise DatasetError(
                f"Every {self.noun} of '{self.uri}' ({len(found):,}) is a link that leads out of '{self.base}' or "
                "nowhere, and such links are not followed: name the folder that they lead to, or copy it (cp -rL)."
            )
        strange = sum(file.path.encode("utf-8", "ignore").decode() != file.path for file in found)
        if strange:
            raise DatasetError(
                f"The names of {strange} files in '{self.base}' are not UTF-8, which no table can hold; rename them."
            )
        return found

    def _data(self) -> list[StoredObject]:
        """The files of this format, if there are any."""
        return [file for file in self.listing().files if self.reads(file.path)]

    @classmethod
    def reads(cls, name: str) -> bool:
        """Whether a file is of this format, by its name."""
        return name.lower().endswith(cls.suffixes)

    @classmethod
    def items(cls, storage: Storage, path: str) -> Iterator[Item]:
        """Everything in one data file, in order and with nothing skipped; an odd item stands for an unreadable rest.

        read() skips bytes that belong to no sample, and something could hide in those.
        """
        try:
            yield from cls._items(storage, path)
        except cls.damage:
            yield Item(path, None, "", b"", odd=True)

    @classmethod
    @abstractmethod
    def _items(cls, storage: Storage, path: str) -> Iterator[Item]:
        """As items; raises `damage`."""

    def listing(self) -> Listing:
        """What the URI names."""
        if self._listing is None:
            self._listing = Listing.of(self.uri, self.options)
        return self._listing

    def left_out(self) -> dict[str, int]:
        """How many objects below the input are no data, by kind; members of a shard are counted when it is read."""
        used = self._used()
        rest = Counter(names.no_data(self.noun, file.path) for file in self.listing().files if file.path not in used)
        return dict(sorted((self.listing().left_out + rest).items()))

    def _used(self) -> Collection[str]:
        """The paths of all files that shards read."""
        return {file.path for file in self.sources()}

    def name_of(self, shard: Shard) -> str:
        """The shard file's path below the dataset's base; raises DatasetError if it is not below it."""
        name = shard.uri.removeprefix(join_uri(self.base, ""))
        if name == shard.uri:
            raise DatasetError(f"The shard {shard.uri} is not part of the dataset {self.base}.")
        return name

    def _readable_name(self, shard: Shard) -> str:
        """The same; raises NotAFile where the release could not have it, on a disk or at all."""
        name = safe_path(self.name_of(shard))
        if any(self._is_file(above, {}) for above in folders_above(name)):
            raise NotAFile(f"In {self.base} a folder has the name of a file, which no disk can hold.", path=name)
        return name

    def _is_file(self, path: str, known: dict[str, bool]) -> bool:
        """Whether a file is there, which a bucket can have beside a folder of its name; `known` keeps answers."""
        if path not in known:
            try:
                known[path] = self.storage.exists(path)
            except AccessDenied:  # S3 says so of a missing object to a user who may list this prefix alone
                known[path] = False
        return known[path]

    def shards(self) -> list[Shard]:
        """Every unit of work, a file each, always the same list in the same order for the same files."""
        named = [(names.shard_id(file.path, self.suffixes), file) for file in self.sources()]
        if len(dict(named)) != len(named):
            raise DatasetError(f"Two shards of '{self.uri}' would get the same id; rename one of them.")
        return [Shard(name, join_uri(self.base, f.path), f.etag, f.size, self.format) for name, f in named]

    @abstractmethod
    def read(self, shard: Shard, left_out: Counter[str] | None = None) -> Iterator[Sample]:
        """The samples of a shard in order; a part that cannot be read is a sample with a problem.

        Members that are no part of a sample are counted in `left_out` by kind (see names.py). Raises
        StorageError if the storage fails, and Changed if the shard is not the one in the inventory.
        """

    def output_path(self, shard: Shard, name: str | None = None) -> str:
        """Where the shard goes in the release: below data/, with the name and sub-folders of the input.

        Under another `name` only the format's ending stays.
        """
        old = self.name_of(shard)
        return f"data/{old if name is None else name + old[len(names.without_suffix(old, self.suffixes)) :].lower()}"

    @abstractmethod
    def writer(
        self, shard: Shard, local_path: Path, keep_fields: frozenset[str], name: str | None = None
    ) -> ShardWriter:
        """A writer of this shard's output to `local_path`, passing only the fields in the allow-list."""


def folders_above(path: str) -> list[str]:
    """`a/b/c` -> `a`, `a/b`."""
    parts = path.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]


def label(sample: Sample, subject_field: str) -> str | None:
    """The dataset's own name for the person in a sample, or None if it gives none.

    subject_field is a member extension or column, a JSON key (`json:person` or `person`), either of them with
    dots for nested values, or `folder:parent` for the name of the folder that holds the image.
    """
    if subject_field == FOLDER_PARENT:
        return sample.key.rpartition("/")[0].rpartition("/")[2] or None
    return next((text for value in values_of(sample, subject_field) if (text := _as_label(value))), None)


def values_of(sample: Sample, field: str) -> Iterator[Any]:
    """What a sample has under the name of a member, column or JSON key (see `label`), the nearest first."""
    name = field.removeprefix("json:")
    places = [sample.fields] if name == field else []
    places += [
        names.json_object(value) for key, value in sample.fields.items() if names.suffix_of(f"x.{key}") == "json"
    ]
    for place in places:
        yield from (value for value in (place.get(name), _nested(place, name)) if value is not None)


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
    if not isinstance(value, str | int) or isinstance(value, bool):
        return None
    return str(value).strip().encode("utf-8", "backslashreplace").decode()  # JSON may tell halves of signs
