"""The comparison of what a client reports with what the stub stamped."""

from dataclasses import replace

import numpy as np
import pytest

from bench.paced import Errors, Measured, errors, is_within
from bench.peer_results import Reported
from bench.stamps import Stamps

_GAPS = np.array([0.0, 0.010, 0.0])
"""Between four tokens that are written in two pieces, 10 ms apart."""


def _stamps() -> Stamps:
    """Two streams, the second of which ended first."""
    written = np.array([[1.050, 1.060], [0.070, 0.080]])
    return Stamps(np.array([2, 1]), np.array(["b", "a"]), np.array([1.0, 0.0]), written)


def _reported(row: int, *, late: float = 0.0, gap: float = 0.0) -> Reported:
    gaps = _GAPS + np.array([0, gap, 0])
    return Reported(row, (0.050, 0.070)[row] + late, gaps, float(gaps.mean()))


def test_a_client_that_reports_what_was_stamped_is_not_off() -> None:
    for found in errors(_stamps(), [_reported(1), _reported(0)], tokens=4):
        assert found is not None
        assert found.worst == pytest.approx(0.0, abs=1e-9)


def test_each_latency_is_compared_with_its_own_stream_and_in_both_directions() -> None:
    ttft, itl, mean = errors(_stamps(), [_reported(1, late=0.002), _reported(0, gap=-0.003)], tokens=4)
    assert ttft is not None
    assert itl is not None
    assert mean is not None
    assert (ttft.median, ttft.worst) == pytest.approx((1.0, 2.0))
    # Only the gap before the second piece counts: those within a piece would halve the median.
    assert (itl.median, itl.worst) == pytest.approx((1.5, 3.0))
    assert mean.worst == pytest.approx(1.0)


def test_a_client_without_single_gaps_has_no_error_of_them() -> None:
    _, itl, mean = errors(_stamps(), [Reported(0, 0.050, None, float(_GAPS.mean()))], tokens=4)
    assert itl is None
    assert mean is not None
    assert mean.worst == pytest.approx(0.0, abs=1e-9)


def _measured(ttft: float, itl: float) -> Measured:
    return Measured(1000, 800, 0.8, 10, 0.1, Errors(ttft, 90, 900), Errors(itl, 90, 900), None)


def test_the_limit_is_about_the_median_of_the_rounds_medians() -> None:
    assert is_within([_measured(0.2, 0.9), _measured(5.0, 0.1), _measured(0.9, 0.2)])
    assert not is_within([_measured(0.2, 1.1)])
    assert not is_within([_measured(1.1, 0.2)])


def test_nothing_measured_is_not_within_the_limit() -> None:
    assert not is_within([])
    assert not is_within([replace(_measured(0.1, 0.1), itl=None)])
