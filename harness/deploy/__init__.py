"""Deployments: launched here as child processes, or attached to where they run.

:func:`open_session` is the door. Behind it: *plan* decides, *launch* and *nursery* start, *keeper* guarantees the
end, *startup* reads logs, *warmup* proves that a first transfer works.
"""

from harness.deploy.session import Session, Surroundings, open_session

__all__ = ["Session", "Surroundings", "open_session"]
