"""The result of shrinking: a dataset, a harness command and a curl script that reproduce the fault. Pure."""

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from harness.facts import Deployment, Role
from harness.loads.dataset import write_lines
from harness.reports.text import clean
from harness.run import Sending
from harness.scenario import Condition, Purpose, Request
from harness.shrink.attempts import Tried
from harness.shrink.failing_load import FailingLoad
from harness.shrink.script import ScriptContent, script
from harness.store.redact import redact_argv
from harness.verdict import Verdict
from harness.verify.judging import suspects

FILE, SCRIPT = "reproducer.jsonl", "reproduce.sh"
_PROBES = 4
"""The most requests of the script for wrong answers from a cache; one wrong answer proves the fault."""
_OUTPUTS = ("outputs", "completion")
"""Checks whose failure the script can see in the answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reproducer:
    """The smallest load that still fails."""

    case: FailingLoad
    tried: Tried
    """A failed try of this load."""
    deployment: Deployment
    where: tuple[str, ...]
    """The deployment as flags of the harness."""
    attached: bool
    """Whether ``where`` attaches to a running deployment; otherwise it launches a deployment."""
    base_url: str | None
    """The URL of the user's proxy; None if the harness started the proxy, which has ended."""
    sending: Sending
    probe_tiers: bool
    confirmed: tuple[int, int]
    """Failed tries, and all tries, of its confirmation; (0, 0) if it was not confirmed."""
    story: tuple[str, ...]
    """How the load was found."""

    def command(self, directory: Path) -> tuple[str, ...]:
        """Arguments of the harness that send this load again; ``directory`` holds the dataset."""
        sending, candidate = self.sending, self.tried.candidate
        return (
            *self.where,
            *("--dataset-name", "custom", "--dataset-path", str(directory / FILE)),
            *(() if candidate.timed else ("--concurrency", str(candidate.concurrency))),
            *("--verify", "all"),
            *("--seed", str(self.tried.seed)),
            *(("--extra-body", json.dumps(dict(sending.extra_body))) if sending.extra_body else ()),
            *(("--reference-url", sending.reference_url) if sending.reference_url else ()),
            *(("--probe-tiers",) if self.probe_tiers else ()),
        )

    def shown_command(self, directory: Path) -> str:
        """The command as a line of shell, without credentials."""
        return _shell_line(*self.command(directory))

    @property
    def headline(self) -> str:
        """The load, and how often it fails."""
        failed, runs = self.confirmed
        often = f"fails {failed} of {runs}" if runs else "failed once, not confirmed"
        return f"{self.tried.candidate}: {often}"

    @property
    def failing(self) -> Iterator[str]:
        """A line for each invalid check."""
        for check in self.tried.judgement.checks:
            if check.verdict is Verdict.INVALID:
                yield clean(f"invalid {check.name}: {check.summary}", None)

    @property
    def dataset(self) -> str:
        """The load as JSONL."""
        return write_lines(self.case.left(self.tried.candidate))

    @property
    def as_json(self) -> dict[str, Any]:
        """The part of result.json about the shrinking."""
        failed, runs = self.confirmed
        return {
            "failed": failed,
            "runs": runs,
            "concurrency": self.tried.candidate.concurrency,
            "timed": self.tried.candidate.timed,
            "checks": list(self.case.checks),
            "story": list(self.story),
        }

    def script(self, directory: Path) -> str:
        """The bash script for a bug report."""
        deployment, lines = self.deployment, self.case.left(self.tried.candidate)
        probes = tuple(self._probes({line.request.request_id: line.request for line in lines}))
        phases = groupby(lines, lambda line: line.phase)
        return script(
            ScriptContent(
                batches=tuple(tuple(line.request for line in group) for _, group in phases),
                concurrency=self.tried.candidate.concurrency,
                times={line.request.request_id: line.at for line in lines if line.at is not None},
                probes=probes,
                reset=any(probe.condition is Condition.OFFLOAD_TIER for probe in probes),
                model=deployment.model,
                prefill_url=deployment.of(Role.PREFILL)[0].url,
                decode_url=deployment.of(Role.DECODE)[0].url,
                proxy_url=self.base_url,
                about=tuple(self._about(directory)),
                header_names=tuple(self.sending.headers),
                extra_body=self.sending.extra_body,
                counters=not set(self.case.checks) <= set(_OUTPUTS),
            )
        )

    def _about(self, directory: Path) -> Iterator[str]:
        deployment = self.deployment
        versions = "/".join(dict.fromkeys(server.version or "unknown" for server in deployment.servers))
        yield clean(f"{self.headline} on {deployment.engine} {versions}, model {deployment.model}", None)
        yield from self.failing
        yield f"The same with the harness: {self.shown_command(directory)}"
        if not self.attached:
            serve = _shell_line("serve", *self.where)
            yield f"The servers were launched for this and have ended. To launch such servers again: {serve}"
        if self.tried.candidate.timed:
            yield "The fault needs the times at which the requests are sent, which this script keeps to some hundredths"
            yield "of a second."
        elif self.tried.candidate.concurrency > 1:
            yield "The fault needs several requests at once, and may need several runs of this script."

    def _probes(self, lines: Mapping[str, Request]) -> Iterator[Request]:
        """Probes with wrong answers from a cache, under the salt of the request whose blocks they hit.

        Not needed if an answer of the load itself is wrong: the load alone shows the fault.
        """
        history = self.tried.history
        wrong = set(suspects(history))
        if wrong & set(lines):
            return
        asked = (operation.request for operation in history.operations())
        probes = [one for one in asked if one.request_id in wrong and one.purpose is Purpose.PROBE]
        for probe in probes[:_PROBES]:
            origin = lines.get(probe.about or "")
            if origin is not None:
                yield replace(probe, cache_salt=origin.cache_salt)


def _shell_line(*words: str) -> str:
    return shlex.join(["python", "-m", "harness", *redact_argv(words)])
