"""Which faces get the flat ellipse is decided by the method, from what the scan measured and not by any likeness."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from anonlib.methods.base import SurrogateAssignment
from anonlib.methods.feature_transfer import STILL_RECOGNIZED
from anonlib.stages.plan import assignment_table
from anonlib.workspace.schemas import EXPRESSIONS, MESH_POINTS
from tests.support.methods import method_named


def face(**changes: float) -> pa.Table:
    """One face as FACES has it, which can be replaced but for the changes."""
    told = {"presence": 0.99, "yaw": 5.0, "bare": 0.9, "eyes": 60.0} | changes
    eyes = told.pop("eyes")

    def listed(values: np.ndarray) -> pa.Array:
        return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel(), pa.float32()), values.size)

    columns = {name: pa.array([value], pa.float32()) for name, value in told.items()}
    columns |= {name: pa.array([name]) for name in ("face_id", "key")}
    columns["index"] = pa.array([0], pa.int32())
    columns["kind"] = pa.array([None], pa.string())
    columns["box"] = listed(np.array([0, 0, 100, 100.0]))
    columns["landmarks"] = listed(np.array([0, 0, eyes, 0, 0, 0, 0, 0, 0, 0.0]))
    columns["mesh"] = listed(np.zeros(MESH_POINTS * 3))
    columns["expression"] = listed(np.zeros(len(EXPRESSIONS)))
    return pa.table(columns)


def test_an_assignment_has_the_columns_of_its_faces_and_what_was_decided() -> None:
    assigned = [SurrogateAssignment(("a surrogate",), "a class"), SurrogateAssignment(reason="why")]
    rows = assignment_table(method_named(name="k-diff"), pa.concat_tables([face(), face()]), assigned).to_pylist()
    assert [row["method"] for row in rows] == ["k-diff", "solid"]
    assert [row["surrogates"] for row in rows] == [["a surrogate"], None]
    assert [row["reason"] for row in rows] == [None, "why"] and rows[0]["class_id"] == "a class"


@pytest.mark.parametrize(
    ("changes", "name", "reason"),
    [
        ({}, "k-diff", None),
        ({"presence": 0.2}, "k-diff", "the mesh does not fit"),
        ({"yaw": -71.0}, "k-diff", "turned away by more than 60 degrees"),
        ({"bare": 0.3}, "k-diff", "something covers the face"),
        ({"bare": 0.3, "presence": 0.2}, "k-diff", "the mesh does not fit"),
        ({"eyes": 9.0}, "embedding", "fewer than 16 px between the eyes"),
        ({"eyes": 9.0}, "k-diff", None),
    ],
)
def test_a_face_that_cannot_be_replaced_is_redacted_with_the_reason(
    changes: dict[str, float], name: str, reason: str | None
) -> None:
    method = method_named(name, **({"accept": STILL_RECOGNIZED} if name == "embedding" else {}))
    (why,) = method.eligible(face(**changes))
    assert (why is None) == (reason is None) and (reason or "") in (why or "")
