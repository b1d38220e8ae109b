"""Which values are measurements, and which stand for "nothing was measured"."""

import numpy as np

# The field's rule for "equal to the missing value" (DCRNN's and LargeST's masks).
NULL_TOLERANCE = 5e-5


def is_measured(values: np.ndarray, null_value: float | None) -> np.ndarray:
    """``isfinite(v) and |v - null_value| >= 5e-5``, of the shape of ``values``; None: every finite value is one."""
    measured = np.isfinite(values)
    if null_value is not None:
        measured &= np.abs(values - np.float32(null_value)) >= NULL_TOLERANCE
    return measured
