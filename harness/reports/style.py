"""Colours of verdicts on a terminal; each goes with a word that says the same."""

from harness.verdict import Verdict

STYLE = {Verdict.VALID: "green", Verdict.INVALID: "red", Verdict.UNKNOWN: "yellow"}
