"""The schema of every table: names, types, shapes and units, and which tables may never leave the workspace; and the
files of a release.

Restricted tables hold personal data and exist in the workspace alone; a test holds that no released schema
shares a restricted column. Shapes of fixed-size lists are flattened row by row; coordinates are px of the
upright image, x before y, unless said otherwise.
"""

from __future__ import annotations

import pyarrow as pa

CERTIFICATE = "certificate.json"
RUN_NOTE = "run.json"
STATEMENT = "audit.json"
"""An audit's statement, which vouches for AUDIT_FILES."""
AUDIT_FILES = ("report.json", "report.schema.json", "report.html", "report.pdf", "croissant.json")
CLASSES_TABLE, SURROGATES_TABLE, DRAWS_TABLE = "classes.parquet", "surrogates.parquet", "draws.parquet"
DATA, MANIFESTS, MARKERS, WITHDRAWN = "data/", "manifest/", "commits/", "withdrawn/"
"""The folders of a release; WITHDRAWN keeps markers while reviewed shards are rendered again."""

MESH_POINTS = 468
EMBEDDING_DIM = 128
SECOND_DIM = 1024
EXPRESSIONS = ("neutral", "happy", "sad", "angry", "fearful", "disgusted", "surprised")

RELEASED, NO_FACE, QUARANTINED = "released", "no_face", "quarantined"
SOLID = ("solid", "review")
"""Fallbacks that are the flat ellipse: the job's own, and a reviewer's."""
CONFIRMED, MASKED, WITHHELD = "confirmed", "masked", "withheld"
"""What a manifest's `review` says that a person decided on an image; null: nobody did."""


def manifest_path(shard: str) -> str:
    """The manifest of a shard in a release."""
    return f"{MANIFESTS}{shard}.parquet"


def marker_path(shard: str) -> str:
    """The marker of a shard in a release, by which the shard is committed."""
    return f"{MARKERS}{shard}.json"


def _floats(count: int) -> pa.DataType:
    return pa.list_(pa.float32(), count)


INVENTORY = pa.schema(
    [
        ("shard_id", pa.string()),
        ("uri", pa.string()),
        ("etag", pa.string()),
        ("bytes", pa.int64()),
        ("format", pa.string()),
        ("start", pa.int64()),
        ("stop", pa.int64()),
        ("files", pa.list_(pa.string())),
    ]
)

IMAGES = pa.schema(
    [
        ("key", pa.string()),
        ("position", pa.int64()),
        ("reason", pa.string()),
        ("problem", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("faces", pa.int32()),
    ]
)

FACES = pa.schema(
    [
        ("face_id", pa.string()),
        ("key", pa.string()),
        ("index", pa.int32()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("label", pa.string()),
        ("kind", pa.string()),  # of what is no face; null: a face
        ("score", pa.float32()),
        ("box", _floats(4)),
        ("landmarks", _floats(10)),
        ("mesh", _floats(MESH_POINTS * 3)),
        ("embedding", _floats(EMBEDDING_DIM)),
        ("second", pa.list_(pa.float16(), SECOND_DIM)),
        ("crop", pa.binary()),
        ("crop_from_image", _floats(6)),
        ("yaw", pa.float32()),
        ("pitch", pa.float32()),
        ("roll", pa.float32()),
        ("presence", pa.float32()),
        ("sharpness", pa.float32()),
        ("clarity", pa.float32()),
        ("bare", pa.float32()),
        ("glasses", pa.float32()),
        ("mouth_open", pa.float32()),
        ("eyes_open", pa.float32()),
        ("age", pa.float32()),
        ("female", pa.float32()),
        ("expression", _floats(len(EXPRESSIONS))),
    ]
)

SUBJECTS = pa.schema(
    [
        ("subject_id", pa.string()),
        ("person_id", pa.string()),
        ("formed_by", pa.string()),
        ("faces", pa.list_(pa.string())),
        ("template", _floats(EMBEDDING_DIM)),
        ("female", pa.float32()),
        ("age", pa.float32()),
        ("stratum", pa.list_(pa.string())),
        ("class_id", pa.string()),
        ("surrogates", pa.list_(pa.string())),
    ]
)

DRAW = pa.struct(
    [
        ("vector", _floats(EMBEDDING_DIM)),
        ("female", pa.float32()),
        ("age", pa.float32()),
        ("rows", pa.list_(pa.int32())),
        ("weights", pa.list_(pa.float32())),
    ]
)

DRAWS = pa.schema([("surrogate", pa.string()), ("draw", DRAW)])

CLASSES = pa.schema(
    [
        ("class_id", pa.string()),
        ("members", pa.list_(pa.string())),
        ("effective_k", pa.int32()),
        ("stratum", pa.list_(pa.string())),
        ("surrogate", pa.string()),
    ]
)

SURROGATES = pa.schema(
    [
        ("surrogate_id", pa.string()),
        ("donors", pa.list_(pa.string())),
        ("portraits", pa.list_(pa.list_(pa.string()))),
        ("stratum", pa.list_(pa.string())),
        ("draw", DRAW),
    ]
)

PORTRAITS = pa.schema([FACES.field(name) for name in ("face_id", "mesh", "crop", "crop_from_image", "expression")])

ASSIGNMENTS = pa.schema(
    [
        ("face_id", pa.string()),
        ("key", pa.string()),
        ("index", pa.int32()),
        ("method", pa.string()),
        ("class_id", pa.string()),
        ("surrogates", pa.list_(pa.string())),
        ("reason", pa.string()),
        ("box", _floats(4)),
        ("mesh", _floats(MESH_POINTS * 3)),
        ("expression", _floats(len(EXPRESSIONS))),
    ]
)

ACCOUNTS = pa.schema(
    [
        ("person", pa.string()),
        ("template", _floats(EMBEDDING_DIM)),
        ("labelled", pa.bool_()),
        ("release", pa.string()),
        ("kind", pa.string()),
        ("method", pa.string()),
        ("draw_id", pa.string()),
        ("pure", pa.float64()),
        ("per_radian", pa.float64()),
        ("draw", DRAW),
        ("stratum", pa.list_(pa.string())),
        ("crowd", pa.string()),
    ]
)

REASONS = pa.schema([("key", pa.string()), ("reason", pa.string()), ("sentence", pa.string())])

SIMILARITY = pa.struct([("recognizer", pa.string()), ("to_source", pa.float32()), ("threshold", pa.float32())])

# What a manifest says of a face is the same for all faces of its surrogate, but for its place in the picture: a figure
# or a reason that depends on the face would tell whose it was. Those stay in the workspace (RENDERED).
MANIFEST_FACE = pa.struct(
    [
        ("box", pa.list_(pa.int32())),
        ("method", pa.string()),
        ("method_version", pa.string()),
        ("k", pa.int32()),
        ("epsilon", pa.float32()),
        ("surrogate_digest", pa.string()),
        ("detected_again", pa.bool_()),
        ("fallback", pa.string()),
    ]
)

MANIFEST = pa.schema(
    [
        ("key", pa.string()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("path", pa.string()),
        ("output_sha256", pa.string()),
        ("input_hmac", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("format", pa.string()),
        ("metadata_stripped", pa.list_(pa.string())),
        ("notes", pa.list_(pa.string())),
        ("faces", pa.list_(MANIFEST_FACE)),
        ("review", pa.string()),
    ]
)

RENDERED = pa.schema(
    [
        ("face_id", pa.string()),
        ("key", pa.string()),
        ("box", _floats(4)),
        ("method", pa.string()),
        ("fallback", pa.string()),
        ("reason", pa.string()),
        ("coverage", pa.float32()),
        ("similarity", pa.list_(SIMILARITY)),
        ("detected_again", pa.bool_()),
    ]
)

# What a certificate's claim rests on. Names of classes and people are pseudonyms of these tables alone; digests are a
# manifest's surrogate_digest. No table says of which class a surrogate was made.
CERTIFIED_CLASSES = pa.schema(
    [
        ("class", pa.string()),
        ("people", pa.list_(pa.string())),
        ("k", pa.int32()),
        ("effective_k", pa.int32()),
        ("wears", pa.string()),
    ]
)

CERTIFIED_SURROGATES = pa.schema([("digest", pa.string()), ("donors", pa.int32())])

CERTIFIED_DRAWS = pa.schema([("digest", pa.string()), ("epsilon", pa.float64())])

CERTIFIED = {CLASSES_TABLE: CERTIFIED_CLASSES, SURROGATES_TABLE: CERTIFIED_SURROGATES, DRAWS_TABLE: CERTIFIED_DRAWS}
"""The schema of each table that a certificate may rest on, by its file."""

RESTRICTED = {
    "inventory": INVENTORY,
    "images": IMAGES,
    "reasons": REASONS,
    "faces": FACES,
    "subjects": SUBJECTS,
    "classes": CLASSES,
    "surrogates": SURROGATES,
    "draws": DRAWS,
    "portraits": PORTRAITS,
    "assignments": ASSIGNMENTS,
    "rendered": RENDERED,
    "accounts": ACCOUNTS,
}
RELEASED_TABLES = {
    "manifest": MANIFEST,
    "classes": CERTIFIED_CLASSES,
    "surrogates": CERTIFIED_SURROGATES,
    "draws": CERTIFIED_DRAWS,
}
RESTRICTED_COLUMNS = frozenset(
    {
        "embedding",
        "second",
        "crop",
        "template",
        "mesh",
        "landmarks",
        "label",
        "subject_id",
        "person_id",
        "class_id",
        "members",
        "face_id",
        "score",
        "similarity",
        "coverage",
    }
)
