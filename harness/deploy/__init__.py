"""Deployments, launched as child processes or attached to.

:func:`open_session` is the only function that other rooms need. Behind it, *plan* decides what to launch, *launch* and
*nursery* start it, *keeper* guarantees that it ends, *startup* reads logs, *warmup* tests the first transfers.
"""

from harness.deploy.session import Session, Surroundings, open_session

__all__ = ["Session", "Surroundings", "open_session"]
