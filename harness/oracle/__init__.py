"""Predicts every server's counters from the requests and the deployment's facts, by modelling its caches. No I/O."""

from harness.oracle.expectation import PREDICTED, ServerExpectation
from harness.oracle.predict import Prediction, ServerKey, predict
from harness.oracle.server_request import PhaseKey

__all__ = ["PREDICTED", "PhaseKey", "Prediction", "ServerExpectation", "ServerKey", "predict"]
