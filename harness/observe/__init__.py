"""What the servers say about themselves: ``/metrics`` to typed counters, when they rest, and their facts.

:mod:`exposition` and :mod:`counters` are pure; :mod:`scrape`, :mod:`settle`, :mod:`observer` and :mod:`server_info` are
given a session, a clock or a reader.
"""

from harness.observe.observer import DeploymentObserver
from harness.observe.server_info import learn_deployment, learn_server

__all__ = ["DeploymentObserver", "learn_deployment", "learn_server"]
