"""What the counters must say: closed-form predictions from the requests and the deployment's facts. No I/O."""

from harness.oracle.expectation import PREDICTED, ServerExpectation
from harness.oracle.predict import PhaseKey, ServerKey, predict

__all__ = ["PREDICTED", "PhaseKey", "ServerExpectation", "ServerKey", "predict"]
