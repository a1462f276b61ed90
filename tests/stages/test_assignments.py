"""Which faces get the flat ellipse is decided by the plan, from what the scan measured and not by any likeness."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from anonlib.methods.planning import SurrogateAssignment
from anonlib.stages.assignments import assignments, why_redacted
from anonlib.workspace.schemas import EXPRESSIONS, MESH_POINTS
from tests.support.runs import job


def face(**changes: float) -> pa.Table:
    """One face as FACES has it, which can be replaced but for the changes."""
    told = {"presence": 0.99, "yaw": 5.0, "bare": 0.9, "eyes": 60.0} | changes
    eyes = told.pop("eyes")

    def listed(values: np.ndarray) -> pa.Array:
        return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel(), pa.float32()), values.size)

    columns = {name: pa.array([value], pa.float32()) for name, value in told.items()}
    columns |= {name: pa.array([name]) for name in ("face_id", "key")}
    columns["index"] = pa.array([0], pa.int32())
    columns["box"] = listed(np.array([0, 0, 100, 100.0]))
    columns["landmarks"] = listed(np.array([0, 0, eyes, 0, 0, 0, 0, 0, 0, 0.0]))
    columns["mesh"] = listed(np.zeros(MESH_POINTS * 3))
    columns["expression"] = listed(np.zeros(len(EXPRESSIONS)))
    return pa.table(columns)


def test_a_face_that_can_be_replaced_wears_what_its_person_was_given(tmp_path: Path) -> None:
    assert why_redacted(face(), "k-diff") == [None]
    found = assignments(job("in", tmp_path), face(), [SurrogateAssignment(("a surrogate",), "a class")])
    (row,) = found.table.to_pylist()
    assert (row["method"], row["surrogates"], row["class_id"]) == ("k-diff", ["a surrogate"], "a class")
    assert (found.redacted, found.worn, row["reason"]) == (0, ["a surrogate"], None)


@pytest.mark.parametrize(
    ("changes", "method", "reason"),
    [
        ({"presence": 0.2}, "k-diff", "the mesh does not fit"),
        ({"yaw": -71.0}, "k-diff", "turned away by more than 60 degrees"),
        ({"bare": 0.3}, "k-diff", "something covers the face"),
        ({"eyes": 9.0}, "embedding", "fewer than 16 px between the eyes"),
        ({"eyes": 9.0}, "k-diff", None),
    ],
)
def test_a_face_that_cannot_be_replaced_is_redacted_with_the_reason(
    changes: dict[str, float], method: str, reason: str | None
) -> None:
    (why,) = why_redacted(face(**changes), method)
    assert (why is None) == (reason is None) and (reason or "") in (why or "")


def test_a_person_without_a_surrogate_is_redacted(tmp_path: Path) -> None:
    found = assignments(
        job("in", tmp_path), face(), [SurrogateAssignment(reason="fewer than 5 persons could hide together")]
    )
    (row,) = found.table.to_pylist()
    assert (row["method"], row["surrogates"]) == ("solid", None) and "fewer than 5" in row["reason"]
