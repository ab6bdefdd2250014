"""The harness's exceptions, and the exit code that each leads to.

There are two kinds: mistakes that the *user* can correct (exit code 2), and failures of the harness or of a server
(exit code 4). A wrong answer of the deployment under test is a verdict (exit code 1), never an exception.

    HarnessError                 4
    ├── CrashError               4   a bug in the harness
    ├── UsageError               2   bad flags, unreachable URL, missing model: nothing was started
    │   └── ModelNotFound
    └── DeployError              4   a server did not start, or died
        └── EngineNotInstalled   2

Every message is one paragraph that says what happened, where, and what to do. Credentials in URLs and headers are
removed from the message when the exception is made.
"""

from enum import IntEnum

from harness.redact import redact_text


class ExitCode(IntEnum):
    """Exit codes of ``python -m harness``. The numbers are public: CI scripts depend on them."""

    VALID = 0
    INVALID = 1
    USAGE = 2
    UNKNOWN = 3
    HARNESS = 4


class HarnessError(Exception):
    """The harness could not do its work. The deployment may be right or wrong."""

    exit_code = ExitCode.HARNESS

    def __init__(self, message: str = "") -> None:
        super().__init__(redact_text(message))


class CrashError(HarnessError):
    """An unexpected exception inside the harness. Its traceback is stored, not shown."""


class UsageError(HarnessError):
    """The user can correct this: a flag, a URL, a path."""

    exit_code = ExitCode.USAGE


class ModelNotFound(UsageError):  # noqa: N818 - the name says what happened
    """There is no model configuration at the given place."""


class DeployError(HarnessError):
    """A server or the proxy did not start, or died. The message quotes its log."""


class EngineNotInstalled(DeployError):  # noqa: N818 - as above
    """The engine's Python interpreter cannot import a package that the engine needs."""

    exit_code = ExitCode.USAGE
