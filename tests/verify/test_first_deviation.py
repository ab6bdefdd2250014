"""Deviations of a few numbers are those of numpy to the last bit: an output may be wrong by its last bits alone."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from harness.verify.judging.first_token import deviation


@given(values=st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=12))
def test_it_is_that_of_numpy(values: list[float]) -> None:
    assert deviation(values) == float(np.std(values))
