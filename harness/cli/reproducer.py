"""What a shrunk run leaves: a dataset, a harness command, a script of curl lines, and a run to be judged again."""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from harness.cli.attempts import Tried
from harness.cli.measure import start_of
from harness.cli.options import LoadOptions
from harness.cli.shrink_target import Chosen
from harness.facts import Deployment, Role
from harness.history import History
from harness.loads.dataset import NAME as DATASET
from harness.loads.dataset import write_lines
from harness.reports import make_report
from harness.reports.text import clean
from harness.scenario import Condition, Purpose, Request
from harness.shrink import FailingLoad, ScriptContent, script
from harness.store import RunStore, redact_argv
from harness.verdict import Verdict
from harness.verify.judging import suspects

FILE, SCRIPT = "reproducer.jsonl", "reproduce.sh"
_PROBES = 4
"""Wrong answers out of a cache that the script asks for: one proves the poison."""
_PRINTED = 6000
"""Characters of a script that is shown whole; prompts of thousands of tokens are left to the file."""
_OUTPUTS = ("outputs", "completion")
"""Checks whose failing a script sees in the answers."""


@dataclass(frozen=True, slots=True)
class Reproducer:
    """The smallest load that still fails."""

    case: FailingLoad
    tried: Tried
    """A run of it that failed."""
    deployment: Deployment
    chosen: Chosen
    load: LoadOptions
    confirmed: tuple[int, int]
    """How often it failed, of how many runs; (0, 0) where it was not confirmed."""
    story: tuple[str, ...]

    def command(self, directory: Path) -> tuple[str, ...]:
        """Arguments of the harness that run it again."""
        return (
            *self.chosen.words,
            *("--dataset-name", "custom", "--dataset-path", str(directory / FILE)),
            *("--concurrency", str(self.tried.candidate.concurrency), "--verify", "all"),
            *("--seed", str(self.tried.seed)),
            *(("--extra-body", json.dumps(self.load.extra_body)) if self.load.extra_body else ()),
            *(("--reference-url", self.load.reference_url) if self.load.reference_url else ()),
            *(("--probe-tiers",) if self.load.probe_tiers else ()),
        )

    @property
    def headline(self) -> str:
        """What fails, and how often."""
        failed, runs = self.confirmed
        often = f"fails {failed} of {runs}" if runs else "failed once, not confirmed"
        return f"{self.tried.candidate}: {often}"


def store_reproducer(reproducer: Reproducer, store: RunStore) -> None:
    """Write dataset and script, and the failing run as this directory's own history and result."""
    tried, directory = reproducer.tried, store.path
    store.save_text(FILE, write_lines(reproducer.case.left(tried.candidate)))
    store.save_text(SCRIPT, script(_told(reproducer, directory)))
    started = start_of(reproducer.command(directory), seed=tried.seed, names=(DATASET,))
    history = History((started, *tried.history.entries))
    for entry in history.entries:
        store.record(entry)
    failed, runs = reproducer.confirmed
    story = {
        "failed": failed,
        "runs": runs,
        "concurrency": tried.candidate.concurrency,
        "checks": list(reproducer.case.checks),
        "story": list(reproducer.story),
    }
    report = make_report(reproducer.deployment, history, tried.judgement, directory)
    store.save_result(report.result | {"shrink": story})


def print_reproducer(reproducer: Reproducer, directory: Path) -> None:
    """What was found, and how to see it again."""
    failed, runs = reproducer.confirmed
    print(f"{'UNKNOWN' if runs and not failed else 'REPRODUCED'}: {reproducer.headline}")
    for line in (*_failing(reproducer), *reproducer.story):
        print(f"  {line}")
    text = (directory / SCRIPT).read_text()
    print(f"\nwith the harness:\n  {_shown(reproducer.command(directory))}")
    print(f"\nwith curl, for a bug report ({directory / SCRIPT}):")
    print(text if len(text) <= _PRINTED else "  its prompts are long: see the file\n")
    print(f"stored: {directory}")


def _shown(command: Sequence[str]) -> str:
    return shlex.join(["python", "-m", "harness", *redact_argv(command)])


def _failing(reproducer: Reproducer) -> Iterator[str]:
    for check in reproducer.tried.judgement.checks:
        if check.verdict is Verdict.INVALID:
            yield clean(f"invalid {check.name}: {check.summary}", None)


def _told(reproducer: Reproducer, directory: Path) -> ScriptContent:
    tried, deployment = reproducer.tried, reproducer.deployment
    lines = reproducer.case.left(tried.candidate)
    attachment = reproducer.chosen.target.attachment
    probes = tuple(_probes(reproducer, {line.request.request_id: line.request for line in lines}))
    return ScriptContent(
        batches=tuple(tuple(line.request for line in group) for _, group in groupby(lines, lambda line: line.phase)),
        concurrency=tried.candidate.concurrency,
        probes=probes,
        reset=any(probe.condition is Condition.OFFLOAD_TIER for probe in probes),
        model=deployment.model,
        prefill_url=deployment.of(Role.PREFILL)[0].url,
        decode_url=deployment.of(Role.DECODE)[0].url,
        # A proxy of the harness's own ends with it: the script then does by hand what it did.
        proxy_url=attachment.base_url if attachment else None,
        about=tuple(_about(reproducer, directory)),
        header_names=tuple(reproducer.chosen.target.headers),
        extra_body=reproducer.load.extra_body,
        counters=not set(reproducer.case.checks) <= set(_OUTPUTS),
    )


def _about(reproducer: Reproducer, directory: Path) -> Iterator[str]:
    deployment = reproducer.deployment
    versions = "/".join(dict.fromkeys(server.version or "unknown" for server in deployment.servers))
    yield clean(f"{reproducer.headline} on {deployment.engine} {versions}, model {deployment.model}", None)
    yield from _failing(reproducer)
    yield f"The same with the harness: {_shown(reproducer.command(directory))}"
    if reproducer.chosen.target.attachment is None:
        serve = shlex.join(["python", "-m", "harness", "serve", *redact_argv(reproducer.chosen.words)])
        yield f"The servers were launched for it and are gone; hold up others: {serve}"
    if reproducer.tried.candidate.concurrency > 1:
        yield "It takes several requests at once, and may take several runs of this script."


def _probes(reproducer: Reproducer, lines: Mapping[str, Request]) -> Iterator[Request]:
    """Wrong answers out of caches, asked under the salt of the request whose blocks they hit.

    None where an answer of the load itself is wrong: that shows the fault with fewer requests.
    """
    history = reproducer.tried.history
    wrong = set(suspects(history))
    if wrong & set(lines):
        return
    asked = [o for o in history.operations() if o.request.request_id in wrong and o.request.purpose is Purpose.PROBE]
    for operation in asked[:_PROBES]:
        origin = lines.get(operation.request.about or "")
        if origin is not None:
            yield replace(operation.request, cache_salt=origin.cache_salt)
