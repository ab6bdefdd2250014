"""Makes a run's predictions of counters in a second process, while the load and its verification go on.

The process reads the run's journal as it grows, at low priority. When the load has ended, it predicts the counters,
which takes most of the time of judging; meanwhile the main process verifies the answers. The judge uses the predictions
if they were made from the operations that it judges. In every other case it makes them itself, with the same result.
"""

from harness.beside.process import FEWEST, Beside

__all__ = ["FEWEST", "Beside"]
