"""The pixels of a review, in memory alone: original and released image, upright, as JPEGs that any browser shows.

A shard is read once for all of its images that are to be shown; the shard used longest ago is dropped first.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterable
from dataclasses import replace
from threading import Lock

from anonlib.audit.review_queue import Image
from anonlib.codes import Reason
from anonlib.errors import ImageProblem
from anonlib.job import Job
from anonlib.media.codec import encode
from anonlib.media.sandbox import decode_apart
from anonlib.workspace.images import JobImages

_QUALITY = 95
_MOST_BYTES = 1 << 29

Files = dict[tuple[str, str], bytes]
"""Image files of one shard: originals as ("original", key), outputs as ("released", sha256)."""


class Pictures:
    """The images of one review; `update` those that were rendered again."""

    def __init__(self, job: Job, images: Iterable[Image]) -> None:
        self.job = job
        self._shards = {shard.shard_id: shard for shard in job.shards}
        self._loaded: OrderedDict[str, Files] = OrderedDict()
        self._lock = Lock()
        self._wanted: dict[str, dict[str, Image]] = defaultdict(dict)
        self.update(images)

    def update(self, images: Iterable[Image]) -> None:
        """Take these images as they are now, and drop what was read of their shards."""
        with self._lock:
            # Opened anew: a dataset remembers which files it listed, and takes another one for a change.
            self._images = JobImages(self.job.config, self.job.shards[0].format)
            for image in images:
                self._wanted[image.shard][image.key] = image
                self._loaded.pop(image.shard, None)

    def original(self, image: Image) -> bytes:
        """A JPEG of the upright original; raises ImageProblem, StorageError."""
        return self._shown(self._files(image.shard).get(("original", image.key)))

    def released(self, image: Image) -> bytes:
        """A JPEG of what the release holds; raises ImageProblem, StorageError."""
        return self._shown(self._files(image.shard).get(("released", str(image.row["output_sha256"]))))

    def _files(self, shard: str) -> Files:
        with self._lock:
            files = self._loaded.pop(shard, None)
            if files is None:
                wanted = self._wanted[shard]
                originals = self._images.originals(self._shards[shard], wanted)
                outputs = self._images.released(image.row for image in wanted.values() if image.row["output_sha256"])
                files = {("original", key): data for key, data in originals.items()}
                files |= {("released", digest): data for digest, data in outputs.items()}
            self._loaded[shard] = files
            while len(self._loaded) > 1 and sum(map(_size, self._loaded.values())) > _MOST_BYTES:
                self._loaded.popitem(last=False)
            return files

    def _shown(self, data: bytes | None) -> bytes:
        if data is None:
            raise ImageProblem(Reason.NO_IMAGE, "there is no image where it should be")
        limits = self.job.config.limits
        picture = decode_apart(data, max_mpx=limits.image_mpx, seconds=limits.image_seconds)
        return encode(picture.rgb, replace(picture, format="JPEG", alpha=None), jpeg_quality=_QUALITY)


def _size(files: Files) -> int:
    return sum(map(len, files.values()))
