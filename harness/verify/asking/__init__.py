"""The requests that verify the outputs of a run, as scenarios; each scenario is made from the history so far."""

from harness.verify.asking.options import VerifyOptions
from harness.verify.asking.outputs import VERIFICATION
from harness.verify.asking.plan import verified
from harness.verify.asking.policy import VerifyPolicy
from harness.verify.asking.salt_test import salt_entries

__all__ = ["VERIFICATION", "VerifyOptions", "VerifyPolicy", "salt_entries", "verified"]
