"""Names and fields of a dataset, which are untrusted text: how names split, which are safe, and which fields pass.

The split into key and extension is WebDataset's: up to the first dot of the last path component (base_plus_ext in
https://github.com/webdataset/webdataset), so its readers group our files as they group the input's. What the job does
not name is dropped. A listed name passes its value whole, unless that is an image or holds one.
"""

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from typing import Any

from anonlib.storage.uri import glob_regex

IMAGE_TYPES = {
    **dict.fromkeys(("jpg", "jpeg", "jpe", "jfif", "jfi", "jif"), "image/jpeg"),
    **dict.fromkeys(("png", "apng"), "image/png"),
    "webp": "image/webp",
    **dict.fromkeys(("tif", "tiff"), "image/tiff"),
    **dict.fromkeys(("bmp", "dib"), "image/bmp"),
    "gif": "image/gif",
    **dict.fromkeys(("ppm", "pgm", "pbm", "pnm"), "image/x-portable-anymap"),
    **dict.fromkeys(("jp2", "j2k", "j2c", "jpc", "jpf", "jpx"), "image/jp2"),
    "avif": "image/avif",
    **dict.fromkeys(("heic", "heif", "hif"), "image/heic"),
}
"""Media types by the endings that an image's name may have; HEIC is known, and quarantined."""
_AS_THEY_ARE = frozenset({"image/jpeg", "image/png", "image/webp", "image/heic"})
CLIP_TYPES = {
    "mp4": "video/mp4",
    "m4v": "video/mp4",
    "mov": "video/quicktime",
    "mkv": "video/x-matroska",
    "webm": "video/webm",
    "avi": "video/x-msvideo",
}
"""Media types by the endings that a clip's name may have."""
ANIMATIONS = frozenset({"gif", "png", "webp"})
"""Images that become clips where they are animated."""
IMAGE_EXTENSIONS = frozenset(IMAGE_TYPES)
MEDIA_EXTENSIONS = IMAGE_EXTENSIONS | frozenset(CLIP_TYPES)
"""Endings of images and clips, which both become samples."""
CONVERTED = frozenset(ending for ending, kind in IMAGE_TYPES.items() if kind not in _AS_THEY_ARE)
"""Endings of images that are released as PNG."""
MAX_NAME = 1024
"""Characters of a member's name; a longer one is a problem of its sample."""
KEY_NAMES = frozenset({"key", "__key__", "id", "image_id", "file_name", "filename", "path"})
"""Where a kept field under one of these names repeats the sample's old key, a new key replaces it there too."""

LEFT_OUT = {
    "system folder": ("in a system folder", "in system folders"),
    "system file": ("system file", "system files"),
    "hidden name": ("hidden name", "hidden names"),
    "underscore name": ("underscore name", "underscore names"),
    "cache blob": ("blob of a cache", "blobs of a cache"),
    "unreadable folder": ("unreadable folder", "unreadable folders"),
    "folder mark": ("folder mark", "folder marks"),
    "no file": ("pipe, link or device", "pipes, links or devices"),
}
"""Kinds of objects that are left out and counted: their names in the singular and in the plural. `no_data` has more."""
_SYSTEM_FOLDERS = frozenset(
    {
        *("$recycle.bin", "recycler", "recycled", "#recycle", "@recycle", "lost+found", "lost.dir", "$attach"),
        *("#snapshot", "~snapshot", ".snapshot", ".snapshots", ".zfs", "@recently-snapshot", ".@__thumb", "@eadir"),
        *("@tmp", "@sharebin", "system volume information", ".spotlight-v100", ".fseventsd", ".temporaryitems"),
        *("network trash folder", "temporary items", "__macosx", ".appledouble", ".thumbnails", ".picasaoriginals"),
        *("_gsdata_", ".stversions", ".dropbox.cache", ".git", ".svn", ".hg", ".dvc", ".ipynb_checkpoints"),
        *("__pycache__", ".cache"),
    }
)
_SYSTEM_FILES = frozenset({".ds_store", "thumbs.db", "ehthumbs.db", "desktop.ini", ".picasa.ini", ".directory"})
"""What systems and tools put beside photos, in lower case."""
_OF_TABLES = frozenset({"", "parquet", "tar", "tgz", "gz", "crc"})
"""Endings of files that a name with `_` marks as unfinished or as no data."""
_CACHES = ("datasets--", "models--", "spaces--")
"""How a folder of Hugging Face's cache begins; the files are in `blobs`, and `snapshots` has links to them."""
_TOLD_ENDINGS = """
    txt text json jsonl ndjson csv tsv xml xmp html htm md rst pdf doc docx xls xlsx ods odt rtf tex bib yaml yml
    toml ini cfg conf log lst list db sqlite db3 mdb lock tmp bak old orig jpg_original jpeg_original png_original
    part crdownload download aae thm lrv lrf dng cr2 cr3 crw nef nrw arw srf sr2 orf rw2 raf pef raw rwl srw x3f 3fr
    iiq jxl jxr svg svgz eps ai psd psb xcf kra tga ico icns pcx exr hdr dds fits dcm nii
    mpg mpeg mts m2ts wmv flv 3gp mp3 wav m4a aac flac ogg opus srt vtt ass zip tar gz tgz bz2 xz zst 7z rar parquet
    arrow feather orc avro h5 hdf5 npy npz mat pkl pickle pt pth bin dat onnx safetensors tfrecord tfrecords lmdb
    idx rec py ipynb sh bat exe dll js css java c cpp h r m lnk url webloc torrent sha1 sha256 md5 sig asc crc par2
    cache ply obj stl gltf glb las laz shp geojson kml gpx vcf ics eml msg
"""
_ENDINGS = frozenset(_TOLD_ENDINGS.split())
"""Endings that are told in a count; any other may be a word that a person chose."""
_NO_DATA = re.compile(
    rf"no [A-Za-z ]{{1,20}}: (another ending|no ending|\.({'|'.join(sorted(_ENDINGS | MEDIA_EXTENSIONS))}))"
)
_IMAGE_START = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|RIFF.{4}WEBP|GIF8[79]a|BM.{4}\0{4}|II[*+]\0|MM\0[*+]|P[1-6][\s#]|"
    rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51|.{4}ftyp(avi[fs]|mif1|msf1|hei[cmsx]|hev[cmx])",
    re.DOTALL,
)
_CLIP_START = {
    "mov": re.compile(rb".{4}ftypqt  |\0.{3}(moov|mdat|wide|free|skip|pnot)", re.DOTALL),
    "mp4": re.compile(rb".{4}ftyp(?!avi[fs]|mif1|msf1|hei[cmsx]|hev[cmx])", re.DOTALL),
    "webm": re.compile(rb"\x1a\x45\xdf\xa3.{,60}webm", re.DOTALL),
    "matroska": re.compile(rb"\x1a\x45\xdf\xa3", re.DOTALL),
    "avi": re.compile(rb"RIFF.{4}AVI[ \x19]", re.DOTALL),
}
"""How a clip begins, by its container."""
_IMAGE_WITHIN = re.compile(
    rb"\xff\xd8\xff[\xe0\xe1]..(JFIF|Exif)\0|\x89PNG\r\n\x1a\n|RIFF.{4}WEBPVP8|data:(image/(?!svg)|video/)|"
    rb"(?<![A-Za-z0-9+/])(/9j/|iVBORw0KGgo|R0lGOD[dl]h|UklGR.{6}V0VCUF)[A-Za-z0-9+/\\\r\n]{40}",
    re.DOTALL,
)
"""An image file, or a clip's address, anywhere in other bytes (a pickle, a zip, a sidecar), or in base64."""
_HEAD = 32
MEDIA_HEAD = 64
"""Bytes that tell an image or a clip from other files."""
_ENDING_OF: dict[str | bytes, str] = {b"\x89P": "png", b"RI": "webp", b"GI": "gif", "matroska": "mkv"}

_PNG = b"\x89PNG\r\n\x1a\n"
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_MEMBER = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)", re.DOTALL)


def suffix_of(name: str) -> str:
    """The lower-case text after the last dot of the last component; '' without one."""
    _, dot, ending = name.rpartition("/")[2].rpartition(".")
    return ending.lower() if dot else ""


def why_left_out(path: str, named: Collection[str] = (), above: str = "") -> str | None:
    """The kind (LEFT_OUT) of an object that is no data by its name, or None.

    Files and folders of systems and tools, and names with a dot or `_` in front; a photo and its sidecars may begin
    with `_`, as cameras name those in Adobe RGB. `named`: the parts of the job's own pattern, which names what it says;
    `above`: the name of the folder that the path is below.
    """
    *folders, last = path.split("/")
    for part in (*folders, last):
        is_file = part is last
        if part.lower() in (_SYSTEM_FILES if is_file else _SYSTEM_FOLDERS):
            kind = "system file" if is_file else "system folder"
        elif part.lower().startswith(".trash"):
            kind = "system folder"
        elif above.startswith(_CACHES) and part in ("blobs", "refs"):
            kind = "cache blob"
        elif part.startswith(".") and part not in (".", ".."):
            kind = "hidden name"
        elif part.startswith("_") and not (is_file and suffix_of(part) not in _OF_TABLES):
            kind = "underscore name"
        else:
            above = part
            continue
        if not any(glob_regex(pattern).fullmatch(part) for pattern in named):
            return kind
        above = part
    return None


def no_data(noun: str, path: str) -> str:
    """The kind of a file that is of no use to a format: `no image: .txt`. Only well-known endings are told."""
    ending = suffix_of(path)
    known = ending in MEDIA_EXTENSIONS or ending in _ENDINGS
    return f"no {noun}: {'.' + ending if known else 'another ending' if ending else 'no ending'}"


def is_kind(kind: str) -> bool:
    """Whether this is the name of a kind of left-out objects, which tells nothing of their names."""
    return kind in LEFT_OUT or _NO_DATA.fullmatch(kind) is not None


def counted_kinds(left_out: Mapping[str, int]) -> str:
    """`7 in system folders, 2 .txt (no image)`: kinds as a person reads them, the commonest first."""
    told = []
    for kind, count in sorted(left_out.items(), key=lambda item: (-item[1], item[0])):
        what, _, ending = kind.partition(": ")
        words = LEFT_OUT.get(kind) or (f"{ending} ({what})",) * 2
        told.append(f"{count:,} {words[count != 1]}")
    return ", ".join(told)


def begins_as_image(head: bytes) -> bool:
    """Whether a file that begins with these bytes (32 are enough) is an image of a format that is known here."""
    return _IMAGE_START.match(head) is not None


def begins_as_media(head: bytes) -> bool:
    """Whether a file that begins with these bytes (MEDIA_HEAD are enough) is an image or a clip."""
    return begins_as_image(head) or clip_kind(head) is not None


def clip_kind(head: bytes) -> str | None:
    """The container (mp4, mov, matroska, webm, avi) of a clip that begins with these bytes (64 are enough), or None."""
    return next((kind for kind, start in _CLIP_START.items() if start.match(head)), None)


def animation_kind(head: bytes) -> str | None:
    """Which image that may be animated (gif, png, webp) begins with these bytes, or None."""
    ending = media_ending(head) if begins_as_image(head) and clip_kind(head) is None else None
    return ending if ending in ANIMATIONS else None


def is_clip(name: str, head: bytes = b"") -> bool:
    """Whether a file is a clip: by its first bytes, or where they are of no known image, by its name's ending."""
    return clip_kind(head) is not None or (suffix_of(name) in CLIP_TYPES and not begins_as_image(head))


def holds_image(value: Any) -> bool:
    """Whether a field's value is an image or clip, or holds one: in bytes, in text as base64, in a list or object."""
    if isinstance(value, str):
        value = value.encode("utf-8", "surrogateescape")
    if isinstance(value, bytes):
        return begins_as_media(value[:MEDIA_HEAD]) or _IMAGE_WITHIN.search(value) is not None
    if isinstance(value, Mapping):
        return any(map(holds_image, value.values()))
    if not isinstance(value, list | tuple):
        return False
    if len(value) > _HEAD and all(isinstance(number, int) and 0 <= number < 256 for number in value[:_HEAD]):
        return begins_as_media(bytes(value[:_HEAD]))
    return any(map(holds_image, value))


def is_media(name: str) -> bool:
    """Whether a file name ends as an image's or a clip's; for an extension alone ask is_media(f"x.{extension}")."""
    return suffix_of(name) in MEDIA_EXTENSIONS


def media_ending(head: bytes) -> str:
    """The usual ending of a released image or clip that begins with these bytes."""
    kind = clip_kind(head)
    return _ENDING_OF.get(kind or head[:2], kind or "jpg")


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


def belongs_to(key: str, own: str) -> bool:
    """Whether a manifest's key is that of the tar sample or row `own`, or of a further image: own#2, own#3."""
    return key == own or (key.startswith(f"{own}#") and key[len(own) + 1 :].isdecimal())


def shard_id(name: str, suffixes: tuple[str, ...]) -> str:
    """A file-system safe id for the shard file `name`: its name without the usual, last suffix, where that is plain.

    Any other name keeps its safe signs and gets 8 hex digits of its SHA-256, so ids stay unique and stable.
    """
    stem = without_suffix(name, suffixes)
    if name == stem + suffixes[-1] and _PLAIN.fullmatch(stem):
        return stem
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return re.sub(r"[^A-Za-z0-9_-]+", "_", stem)[-80:].lstrip("-") + "-" + digest


def converted(extension: str, head: bytes) -> bool:
    """Whether a released file with this beginning is a PNG that was another format, by its input's extension."""
    return suffix_of(f"x.{extension}") in CONVERTED and head.startswith(_PNG)


def kept_members(
    members: Mapping[str, bytes], keep: frozenset[str], renamed: Mapping[str, str] | None = None
) -> dict[str, bytes]:
    """The members {extension: content} that pass the job's allow-list, in their order.

    A name in the list is a member extension or column (`txt`, `caption`), or one key of a JSON sidecar (`json:caption`,
    or plain `caption`). What holds an image never passes. A JSON sidecar that is not named itself passes key by key;
    with no key left it is left out. renamed: {old spelling of the sample's key: new one}, from key_spellings. Then
    sidecars that pass by their keys become one `json`, with the first value for a key; where the job lists `json`, that
    member stays as it is.
    """
    kept: dict[str, bytes] = {}
    merged: dict[str, Any] = {}
    for extension, content in members.items():
        if extension in keep:
            if not holds_image(content):
                kept[extension] = content
        elif suffix_of(f"x.{extension}") == "json":
            sidecar = json_object(content)
            passing = {
                name: renamed_value(name, value, renamed)
                for name, value in sidecar.items()
                if keep & {name, f"json:{name}"} and not holds_image(value)
            }
            if renamed is not None:
                merged = passing | merged
            elif passing:
                kept[extension] = json.dumps(passing).encode("ascii")
    if merged:
        kept.setdefault("json", json.dumps(merged).encode("ascii"))
    return kept


def renamed_value(name: str, value: Any, renamed: Mapping[str, str] | None) -> Any:
    """The value of a kept field, with the sample's old key replaced where the field's name says it is one."""
    if not renamed or name not in KEY_NAMES or not isinstance(value, str):
        return value
    # With more behind its dot it may be in other letters, or have another ending, than the sample's own.
    known = next((old for old in renamed if value.startswith(f"{old}.")), value)
    if value not in renamed and known in renamed:
        return f"{renamed[known]}.{suffix_of(value)}" if is_media(value) else renamed[known]
    return renamed.get(value, value)


def key_spellings(stem: str, extension: str, new: str, new_extension: str = "") -> dict[str, str]:
    """How a sample's fields may repeat its old key (with or without folder, ending) -> what that becomes."""
    base = stem.rpartition("/")[2]
    spellings = {stem: new, base: new}
    return spellings | {f"{old}.{extension}": f"{new}.{new_extension}" for old in (stem, base) if extension}


def is_damaged_json(content: Any) -> bool:
    """Whether a sidecar cannot be read as JSON."""
    try:
        json.loads(content)
    except (TypeError, ValueError, RecursionError):
        return True
    return False


def json_object(content: Any) -> dict[str, Any]:
    """The JSON object in a sidecar, or {} if it is not one."""
    if isinstance(content, bytes | str):
        try:
            content = json.loads(content)
        except (ValueError, RecursionError):
            return {}
    return content if isinstance(content, dict) else {}
