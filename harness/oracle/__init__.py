"""What the counters must say: a model of the servers' caches, from the requests and the deployment's facts. No I/O."""

from harness.oracle.expectation import PREDICTED, ServerExpectation
from harness.oracle.predict import ServerKey, predict
from harness.oracle.visit import PhaseKey

__all__ = ["PREDICTED", "PhaseKey", "ServerExpectation", "ServerKey", "predict"]
