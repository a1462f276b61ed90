# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What is in a release?
#
# For whoever was given a release and wants to use it: how many images came through, what became of the faces, what
# was hidden instead of replaced, and which rows to leave out. It needs the release and nothing else; no original is
# read.
#
# Set `ANONLIB_RELEASE` to the folder of a finished release (`make demo` leaves one in `demo/release`).

# %%
import os
import tarfile
from collections import Counter
from pathlib import Path

import altair as alt
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from anonlib.errors import VerificationError
from anonlib.storage import open_storage
from anonlib.verification.release import unproved, verify
from anonlib.workspace.schemas import MANIFEST

alt.renderers.enable("svg")  # pictures in the notebook itself: no network is needed to see them
release = Path(os.environ.get("ANONLIB_RELEASE", "../demo/release"))

# %% [markdown]
# ## Can it be believed?
#
# The certificate is signed, and vouches for every file. Give the key that the owner publishes (`ANONLIB_KEY`):
# without it the signature says that nothing changed since, and not who signed.

# %%
try:
    verified = verify(open_storage(str(release)), os.environ.get("ANONLIB_KEY"))
except VerificationError as problem:
    raise SystemExit(f"Do not use this release: {problem}") from None
print(verified.certificate.claim)
for sentence in unproved(verified):
    print("Not proved:", sentence)

# %% [markdown]
# ## Images
#
# The manifest has a row for each image, the lost ones too: nothing is dropped without a reason.

# %%
manifest = ds.dataset(release / "manifest", format="parquet", schema=MANIFEST).to_table()
statuses = Counter(manifest["status"].to_pylist())
print(f"{manifest.num_rows:,} images:", ", ".join(f"{count:,} {status}" for status, count in statuses.most_common()))
for reason, count in Counter(filter(None, manifest["reason"].to_pylist())).most_common():
    print(f"  {count:,} lost: {reason}")

# %% [markdown]
# ## Faces
#
# `faces` is a list in each row. Laid out flat, a row a face, it is an ordinary table.

# %%
of_image = pc.list_parent_indices(manifest["faces"].combine_chunks())
faces = pa.Table.from_struct_array(pc.list_flatten(manifest["faces"]).combine_chunks())
faces = faces.append_column("key", manifest["key"].take(of_image)).append_column(
    "path", manifest["path"].take(of_image)
)
boxes = pc.list_flatten(faces["box"]).to_numpy().reshape(-1, 4)
became = [
    "hidden" if fallback in ("fill", "solid", "review") else fallback or method
    for fallback, method in zip(faces["fallback"].to_pylist(), faces["method"].to_pylist(), strict=True)
]
faces = faces.append_column("became", pa.array(became))
faces = faces.append_column("height", pa.array(boxes[:, 3] - boxes[:, 1]))
print(f"{faces.num_rows:,} faces:", ", ".join(f"{count:,} {name}" for name, count in Counter(became).most_common()))

# %% [markdown]
# A face that could not be replaced safely is under an ellipse ("hidden"). It matters which these are: where small
# or turned faces are hidden more often, a model that learns from the release sees fewer of them.


# %%
def counted(values: pa.ChunkedArray, kinds: pa.ChunkedArray, title: str) -> alt.Chart:
    """A histogram by kind, counted here: a manifest may have millions of faces, and a chart should not hold them."""
    numbers, names = values.to_numpy(), np.array(kinds.to_pylist())
    edges = np.histogram_bin_edges(numbers, 30)
    rows = [
        {"from": low, "to": high, "faces": int(count), "became": name}
        for name in np.unique(names).tolist()
        for low, high, count in zip(edges, edges[1:], np.histogram(numbers[names == name], edges)[0], strict=False)
    ]
    bars = alt.Chart(pa.Table.from_pylist(rows), width=420, height=180).mark_bar()
    return bars.encode(
        x=alt.X("from:Q", bin="binned", title=title),
        x2="to:Q",
        y=alt.Y("faces:Q", stack=True),
        color=alt.Color("became:N", title="became"),
    )


counted(faces["height"], faces["became"], "height of the face (px)")

# %% [markdown]
# Why a face was hidden, and how alike it is to the one it replaced, stands in no manifest: both depend on the face.
# `anonlib status` reads them in the workspace.

# %% [markdown]
# ## From a row to its image
#
# `path` is the file in the release and `key` the sample in it, here for WebDataset tars; in Parquet the key is a
# column, in a folder `path` is the image itself. `output_sha256` settles which bytes are meant.

# %%
row = manifest.filter(pc.equal(manifest["status"], "released")).slice(0, 1).to_pylist()[0]
print(row["key"], "in", row["path"], "with", len(row["faces"]), "face(s)")
if row["path"].endswith(".tar"):
    with tarfile.open(release / row["path"]) as archive:
        print("holds", [name for name in archive.getnames() if name.startswith(f"{row['key']}.")])

# %% [markdown]
# ## Decide
#
# Which images to learn from. Two rules do for most uses: leave out what has a hidden face where faces are what you
# study, and keep everything where they only happen to be in the picture. The share that the strict rule costs says
# whether you can afford it; if it is large, look at the chart of heights first: the loss is not spread evenly.

# %%
with_hidden = set(faces.filter(pc.equal(faces["became"], "hidden"))["key"].to_pylist())
released = manifest.filter(pc.not_equal(manifest["status"], "quarantined"))["key"].to_pylist()
whole = [key for key in released if key not in with_hidden]
print(f"images without a hidden face: {len(whole):,} of {len(released):,} ({len(whole) / max(len(released), 1):.1%})")
