import numpy as np
import pytest

from anonlib.privacy.sphere import require_unit


def test_unit_rows_pass_in_either_precision() -> None:
    for kind in (np.float32, np.float64):
        require_unit(np.eye(4, dtype=kind), "templates")
        require_unit(np.zeros((0, 4), kind), "templates")


@pytest.mark.parametrize("wrong", [0.0, 0.99, 1.01, np.nan, np.inf])
def test_one_row_of_another_length_is_counted_and_shown(wrong: float) -> None:
    rows = np.eye(4)
    rows[2] = [0.0, 0.0, wrong, 0.0]
    with pytest.raises(ValueError, match=f"^templates must have length 1; 1 of 4 have not, one has {wrong:g}"):
        require_unit(rows, "templates")
