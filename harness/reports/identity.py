"""What a file that leaves the run's directory says of the run: which it is, of which versions, and how to repeat it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from harness.facts import Deployment, alike
from harness.history import History, RunEnded
from harness.redact import redact_text
from harness.reports.measured import run_started
from harness.reports.text import clean
from harness.verdict import Verdict

PROJECT = "pd-harness"
"""The name under which runs appear beside those of other tools."""


@dataclass(frozen=True, slots=True)
class RunIdentity:
    """Texts are printable and have no credentials. A text is empty if the fact is not known."""

    run: str
    """Name of the run's directory; empty if the run is not stored."""
    directory: str
    label: str
    verdict: Verdict
    started: datetime
    """UTC."""
    seconds: float
    """From the start of the command to its last entry; 0 if the run was killed."""
    seed: int
    command: str
    """The command line that repeats the run."""
    harness_version: str
    commit: str
    engine: str
    engine_version: str
    connector: str
    model: str
    device: str

    @property
    def texts(self) -> Mapping[str, str]:
        """All facts by name, for formats that have only texts; the time as ISO 8601."""
        return {
            "run": self.run,
            "directory": self.directory,
            "label": self.label,
            "verdict": self.verdict.value,
            "started": self.started.isoformat(timespec="seconds"),
            "seed": str(self.seed),
            "command": self.command,
            **self.versions,
        }

    @property
    def versions(self) -> Mapping[str, str]:
        """What was tested, and by which version of the harness."""
        return {
            "harness_version": self.harness_version,
            "commit": self.commit,
            "engine": self.engine,
            "engine_version": self.engine_version,
            "connector": self.connector,
            "model": self.model,
            "device": self.device,
        }


def identity_of(  # noqa: PLR0913, PLR0917 - the parts of a report
    deployment: Deployment, history: History, verdict: Verdict, command: str, label: str | None, path: Path | None
) -> RunIdentity:
    """Raises ValueError if the history has no first entry."""
    started = run_started(history)
    return RunIdentity(
        run="" if path is None else _shown(path.name),
        directory="" if path is None else _shown(str(path)),
        label=_shown(label or ""),
        verdict=verdict,
        started=datetime.fromtimestamp(started.wall, UTC),
        seconds=max((entry.at for entry in history.of(RunEnded)), default=0.0),
        seed=started.seed,
        command=command,
        harness_version=_shown(started.harness_version),
        commit=_shown(started.commit or ""),
        engine=_shown(deployment.engine),
        engine_version=_shown(alike(server.version for server in deployment.servers)),
        connector=_shown(alike(_connectors(server.connector_names) for server in deployment.servers)),
        model=_shown(deployment.model),
        device=_shown(deployment.device or ""),
    )


def _connectors(names: tuple[str, ...] | None) -> str:
    return "unknown" if names is None else "+".join(names) or "none"


def _shown(text: str) -> str:
    return clean(redact_text(text), None)
