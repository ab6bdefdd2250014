"""For all tests."""

import gc
import os
import signal

import pytest
from hypothesis import settings

# No test asserts how long something takes: machines are shared.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")

# A shell that starts the tests in the background has SIGINT ignored in all of them, and in every process that they
# start; a terminal has not.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Where pytest-xdist has spread the tests over the cores, numpy's own threads, one for each core in each process, only
# wait for each other. Live tests run in one process, and their engines keep their threads.
if "PYTEST_XDIST_WORKER" in os.environ:
    for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(threads, "1")


# Runs that tests make are not those that a CI system wants to be told of.
for detected in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "BUILDKITE"):
    os.environ.pop(detected, None)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Thousands of collected tests live to the end: the garbage collector need not look through them each time."""
    del session
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
