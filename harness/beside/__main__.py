"""The second process: ``python -m harness.beside JOURNAL``.

Its standard input has the deployment's facts, and stays open as long as the main process lives: when it closes, however
the main process ended, this process ends at once. Its standard output takes the predictions; who reads it uses the last
ones. It ends with the run.
"""

import os

os.nice(10)  # Before anything else is done, imports included: the load comes first.

import pickle  # noqa: E402 - see above
import sys  # noqa: E402 - see above
import threading  # noqa: E402 - see above
import time  # noqa: E402 - see above
from pathlib import Path  # noqa: E402 - see above

from harness.beside.predicting import predictions_along  # noqa: E402 - see above
from harness.collector import collector_paused  # noqa: E402 - see above
from harness.store import follow_journal  # noqa: E402 - see above

_LOOK_AGAIN_S = 0.2
"""Entries are written twice a second or by the hundred."""


def main() -> None:
    """Follow the journal, and write the predictions."""
    deployment = pickle.load(sys.stdin.buffer)  # noqa: S301 - the main process wrote it
    threading.Thread(target=_end_with_the_main_process, daemon=True).start()
    entries = follow_journal(Path(sys.argv[1]), lambda: time.sleep(_LOOK_AGAIN_S))
    with collector_paused():
        for made in predictions_along(deployment, entries):
            pickle.dump(made, sys.stdout.buffer)
            sys.stdout.buffer.flush()


def _end_with_the_main_process() -> None:
    # Not through sys.stdin: a thread that waits in there makes Python abort when the other one has finished.
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
