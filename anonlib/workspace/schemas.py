"""The schema of every table, and the files of a release.

Restricted tables hold personal data and exist in the workspace alone; no released schema shares a restricted column.
Fixed-size lists are flattened row by row; coordinates are px of the upright image, x before y, unless said otherwise.
"""

from __future__ import annotations

import pyarrow as pa

_TEXT, _TEXTS, _BOOL = pa.string(), pa.list_(pa.string()), pa.bool_()
_BYTE, _INT, _LONG, _FLOAT, _DOUBLE = pa.int8(), pa.int32(), pa.int64(), pa.float32(), pa.float64()

CERTIFICATE = "certificate.json"
RUN_NOTE = "run.json"
STATEMENT = "audit.json"
"""An audit's statement, which vouches for AUDIT_FILES."""
AUDIT_FILES = ("report.json", "report.schema.json", "report.html", "report.pdf", "croissant.json", "README.md")
CLASSES_TABLE, SURROGATES_TABLE, DRAWS_TABLE = "classes.parquet", "surrogates.parquet", "draws.parquet"
DATA, MANIFESTS, MARKERS, WITHDRAWN = "data/", "manifest/", "commits/", "withdrawn/"
"""The folders of a release; WITHDRAWN keeps markers while reviewed shards are rendered again."""

MESH_POINTS = 468
EMBEDDING_DIM = 128
SECOND_DIM = 1024
EYES = 8
"""Numbers of both eyes (faces/gaze.py)."""
EXPRESSIONS = ("neutral", "happy", "sad", "angry", "fearful", "disgusted", "surprised")

RELEASED, NO_FACE, QUARANTINED = "released", "no_face", "quarantined"
EXACT, REENCODED = "exact", "reencoded"
"""Whether a photo has the coefficients or pixels it came with, but for what was replaced, or was encoded anew."""
SOLID = "solid"
FILLS = ("fill", SOLID)
"""Methods that hide a face under an ellipse without a px of it: what other methods fall back to."""
GROW = (1.25, 1.35)
"""How far the axes of such an ellipse reach over the face's box, sideways and up-down."""
ELLIPSES = (*FILLS, "review")
"""Fallbacks that are such an ellipse: the job's own, and a reviewer's."""
LOT = "lot"
"""The fallback of a face whose person too few could hide with: a face of the gallery, dealt to that person alone."""
KEPT, IGNORED, SPARED = "kept", "ignored", "spared"
"""The method of a face that stays as it is, and why: it lies in an area that the dataset says to ignore, or its person
agreed."""
STILL, CLIP = "still", "clip"
COUNTS = ("images", "faces", "released", "no_face", "quarantined", "fallbacks")
"""What a marker counts of its shard: images and faces, images by status, and faces in `ELLIPSES`."""
CONFIRMED, MASKED, WITHHELD = "confirmed", "masked", "withheld"
"""What a manifest's `review` says that a person decided on an image; null: nobody did."""


def manifest_path(shard: str) -> str:
    """The manifest of a shard in a release."""
    return f"{MANIFESTS}{shard}.parquet"


def marker_path(shard: str) -> str:
    """The marker of a shard in a release, by which the shard is committed."""
    return f"{MARKERS}{shard}.json"


def _floats(count: int) -> pa.DataType:
    return pa.list_(_FLOAT, count)


def _all(kind: pa.DataType, *names: str) -> list[tuple[str, pa.DataType]]:
    """Columns of one type."""
    return [(name, kind) for name in names]


INVENTORY = pa.schema([*_all(_TEXT, "shard_id", "uri", "etag"), ("bytes", _LONG), ("format", _TEXT), ("files", _TEXTS)])
IMAGES = pa.schema(
    [
        ("key", _TEXT),
        ("position", _LONG),
        *_all(_TEXT, "reason", "problem"),
        *_all(_INT, "height", "width", "faces"),
        *_all(_TEXT, "digest", "format", "space"),  # digest: SHA-256 of the file
        ("exact", _BOOL),  # whether the file may leave with its own data
        ("orientation", _BYTE),
        *_all(_TEXTS, "stripped", "notes"),
        ("frames", _INT),  # of a clip
    ]
)
TRACK = pa.struct(
    [("first", _INT), *((name, pa.binary()) for name in ("boxes", "landmarks", "scores"))]
)  # of a clip's region: from its first frame on 4, 10 and 1 float32 a frame; a score of 0: interpolated
FACES = pa.schema(
    [
        *_all(_TEXT, "face_id", "key"),
        *_all(_INT, "index", "height", "width"),
        *_all(_TEXT, "label", "kind"),  # kind: of what is no face, IGNORED or SPARED; null: a face
        ("consent", _TEXT),  # of a SPARED face: the photo by which it stays
        ("score", _FLOAT),
        ("box", _floats(4)),
        ("landmarks", _floats(10)),
        ("mesh", _floats(MESH_POINTS * 3)),
        ("embedding", _floats(EMBEDDING_DIM)),
        ("second", pa.list_(pa.float16(), SECOND_DIM)),
        ("crop", pa.binary()),
        ("crop_from_image", _floats(6)),
        *_all(_FLOAT, "yaw", "pitch", "roll", "presence", "sharpness", "clarity", "bare", "glasses", "tone"),
        *_all(_FLOAT, "mouth_open", "eyes_open", "age", "female"),
        ("expression", _floats(len(EXPRESSIONS))),
        ("gaze", _floats(EYES)),
        ("track", TRACK),
    ]
)
SUBJECTS = pa.schema(
    [
        *_all(_TEXT, "subject_id", "person_id", "formed_by"),
        ("faces", _TEXTS),
        ("template", _floats(EMBEDDING_DIM)),
        *_all(_FLOAT, "female", "age"),
        ("stratum", _TEXTS),
        ("class_id", _TEXT),
        ("surrogates", _TEXTS),
    ]
)
DRAW = pa.struct(
    [
        ("vector", _floats(EMBEDDING_DIM)),
        *_all(_FLOAT, "female", "age"),
        ("rows", pa.list_(_INT)),
        ("weights", pa.list_(_FLOAT)),
    ]
)
DRAWS = pa.schema([("surrogate", _TEXT), ("draw", DRAW)])
CLASSES = pa.schema(
    [("class_id", _TEXT), ("members", _TEXTS), ("effective_k", _INT), ("stratum", _TEXTS), ("surrogate", _TEXT)]
)
SURROGATES = pa.schema(
    [("surrogate_id", _TEXT), ("donors", _TEXTS), ("portraits", pa.list_(_TEXTS)), ("stratum", _TEXTS), ("draw", DRAW)]
)
PORTRAITS = pa.schema(
    [FACES.field(name) for name in ("face_id", "mesh", "crop", "crop_from_image", "expression", "age")]
)
ASSIGNMENTS = pa.schema(
    [
        *_all(_TEXT, "face_id", "key"),
        ("index", _INT),
        *_all(_TEXT, "kind", "consent", "class_id"),
        ("surrogates", _TEXTS),
        ("reason", _TEXT),
        ("box", _floats(4)),
        ("mesh", _floats(MESH_POINTS * 3)),
        ("expression", _floats(len(EXPRESSIONS))),
        ("gaze", _floats(EYES)),
        ("track", TRACK),
        ("second", pa.list_(pa.float16(), SECOND_DIM)),
    ]
)
ACCOUNTS = pa.schema(
    [
        ("person", _TEXT),
        ("template", _floats(EMBEDDING_DIM)),
        ("labelled", _BOOL),
        *_all(_TEXT, "release", "method", "draw_id"),
        ("pure", _DOUBLE),
        ("crowd", _TEXT),
    ]
)
REASONS = pa.schema(_all(_TEXT, "key", "reason", "sentence"))
SIMILARITY = pa.struct([("recognizer", _TEXT), *_all(_FLOAT, "to_source", "threshold")])

# What a manifest says of a face is the same for all faces of its surrogate, but for its place in the picture: a figure
# or a reason that depends on the face would tell whose it was. Those stay in the workspace (RENDERED).
OF_CLIP = [*_all(_INT, "first", "last", "hidden"), ("boxes", pa.list_(_INT))]
"""Of a clip's face: its frames, in how many an ellipse hides it, and its box in each, 4 numbers a frame."""
MANIFEST_FACE = pa.struct(
    [
        ("box", pa.list_(_INT)),
        *_all(_TEXT, "method", "method_version"),
        ("k", _INT),
        ("epsilon", _FLOAT),
        ("surrogate_digest", _TEXT),
        ("detected_again", _BOOL),
        ("fallback", _TEXT),
        *OF_CLIP,
        ("consent", _TEXT),  # of a SPARED face: a pseudonym of the photo by which it stays
    ]
)
MANIFEST = pa.schema(
    [
        *_all(_TEXT, "key", "status", "reason", "path", "output_sha256", "input_hmac"),
        *_all(_INT, "height", "width"),
        ("format", _TEXT),
        ("orientation", _BYTE),
        ("outside", _TEXT),
        *_all(_TEXTS, "metadata_stripped", "notes"),
        ("faces", pa.list_(MANIFEST_FACE)),
        ("review", _TEXT),
        *_all(_TEXT, "media", "rate"),  # STILL or CLIP; frames a second of a clip, a fraction
        ("frames", _INT),
        ("seconds", _DOUBLE),
    ]
)


def manifest_schema(hides: object) -> pa.Schema:
    """MANIFEST; where a job `hides` more than faces, what is in `faces` also says its `kind`.

    Null: a face, or a region of another kind that the dataset brought.
    """
    if not hides:
        return MANIFEST
    regions = pa.list_(pa.struct([*MANIFEST_FACE, pa.field("kind", _TEXT)]))
    return MANIFEST.set(MANIFEST.get_field_index("faces"), pa.field("faces", regions))


RENDERED = pa.schema(
    [
        *_all(_TEXT, "face_id", "key"),
        ("box", _floats(4)),
        *_all(_TEXT, "method", "fallback", "reason"),
        ("coverage", _FLOAT),
        ("similarity", pa.list_(SIMILARITY)),
        ("detected_again", _BOOL),
    ]
)

# What a certificate's claim rests on. Names of classes and people are pseudonyms of these tables alone; digests are a
# manifest's surrogate_digest. No table says of which class a surrogate was made. `gallery`: the sha256 of the shipped
# face that it is, which has no donors.
CERTIFIED_CLASSES = pa.schema([("class", _TEXT), ("people", _TEXTS), *_all(_INT, "k", "effective_k"), ("wears", _TEXT)])
CERTIFIED_SURROGATES = pa.schema([("digest", _TEXT), ("donors", _INT), ("gallery", _TEXT)])
CERTIFIED_DRAWS = pa.schema([("digest", _TEXT), ("epsilon", _DOUBLE)])
CERTIFIED = {CLASSES_TABLE: CERTIFIED_CLASSES, SURROGATES_TABLE: CERTIFIED_SURROGATES, DRAWS_TABLE: CERTIFIED_DRAWS}
"""The schema of each table that a certificate may rest on, by its file."""

RESTRICTED_COLUMNS = frozenset(
    {
        *("embedding", "second", "crop", "template", "mesh", "gaze", "landmarks", "label", "subject_id", "person_id"),
        *("class_id", "members", "face_id", "score", "similarity", "coverage"),
    }
)
