"""Proves a prefill/decode deployment of an LLM server right under load, or says exactly what is wrong with it.

The names of the Python API (:mod:`harness.api`) can be imported from here. The API is loaded when one of its names is
first used, so that importing a single module stays cheap.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.api import (
        AsyncRunningDeployment,
        Check,
        DatasetLoad,
        DeployError,
        Finding,
        HarnessError,
        NaturalLoad,
        PrefixRepetitionLoad,
        Ramp,
        RandomLoad,
        Report,
        RunningDeployment,
        RunObserver,
        ShareGptLoad,
        SilentObserver,
        Stages,
        Steady,
        TraceLoad,
        UsageError,
        Verdict,
        attach,
        compare_runs,
        launch,
        simulate,
    )

__all__ = [
    "AsyncRunningDeployment",
    "Check",
    "DatasetLoad",
    "DeployError",
    "Finding",
    "HarnessError",
    "NaturalLoad",
    "PrefixRepetitionLoad",
    "Ramp",
    "RandomLoad",
    "Report",
    "RunObserver",
    "RunningDeployment",
    "ShareGptLoad",
    "SilentObserver",
    "Stages",
    "Steady",
    "TraceLoad",
    "UsageError",
    "Verdict",
    "attach",
    "compare_runs",
    "launch",
    "simulate",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from harness import api  # noqa: PLC0415 - the API imports the whole harness

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted(__all__)
