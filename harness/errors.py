"""What can go wrong, and which exit code it ends in.

Two kinds, kept apart: what the *user* can put right (exit code 2) and what failed underneath (exit code 4).
A wrong answer of the deployment under test is neither: that is a verdict (exit code 1), never an exception.

    HarnessError                 4
    ├── CrashError               4   nobody foresaw it: a mistake in the harness
    ├── UsageError               2   bad flags, unreachable URL, missing model: nothing was started
    │   ├── ModelNotFound
    │   └── UnsupportedModel
    └── DeployError              4   an engine did not start, or died
        └── EngineNotInstalled   2

Every message is one paragraph that says what happened, where, and what to do about it. A URL or a header in it is
shown without its credentials, whoever raised it.
"""

from enum import IntEnum

from harness.redact import redact_text


class ExitCode(IntEnum):
    """How ``python -m harness`` ends; other people's CI depends on these numbers."""

    VALID = 0
    INVALID = 1
    USAGE = 2
    UNKNOWN = 3
    HARNESS = 4


class HarnessError(Exception):
    """The harness could not do its work; says nothing about the deployment's correctness."""

    exit_code = ExitCode.HARNESS

    def __init__(self, message: str = "") -> None:
        super().__init__(redact_text(message))


class CrashError(HarnessError):
    """Something that nobody foresaw happened inside the harness; its traceback is stored, not shown."""


class UsageError(HarnessError):
    """The user can put this right: a flag, a URL, a path."""

    exit_code = ExitCode.USAGE


class ModelNotFound(UsageError):  # noqa: N818 - reads as what happened, like FileNotFoundError without its suffix
    """No model configuration where one was named."""


class UnsupportedModel(UsageError):  # noqa: N818 - as above
    """The model's KV cache is not of a kind whose bytes can be predicted."""


class DeployError(HarnessError):
    """A server or the proxy did not come up, or died; carries the cause from its own log."""


class EngineNotInstalled(DeployError):  # noqa: N818 - as above
    """The engine's interpreter cannot import what it needs."""

    exit_code = ExitCode.USAGE
