"""What was run: the deployment and its servers, the load, the versions, and how to repeat and judge the run."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from harness.facts import Deployment, Server
from harness.redact import redact_deployment, redact_url
from harness.reports.judged import Judged
from harness.reports.measured import run_started, under_test
from harness.reports.text import clean, count, duration, plural
from harness.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Command:
    """A command to copy."""

    name: str
    """The id of its element."""
    what: str
    text: str


def facts(run: Judged) -> Iterator[tuple[str, str]]:
    """Names and values of what was run, in the order in which they are shown."""
    started, result, deployment = run_started(run.history), run.result, redact_deployment(run.deployment)
    yield "Date", f"{datetime.fromtimestamp(started.wall, UTC):%Y-%m-%d %H:%M:%S} UTC"
    if run.result.get("label"):
        yield "Label", str(result["label"])
    yield "Deployment", run.overview.deployment
    yield "Model", deployment.model + (f" ({deployment.model_path})" if deployment.model_path else "")
    yield "Proxy", _proxy(deployment)
    yield "Load", load(run)
    yield "Seed", str(started.seed)
    if started.scenarios:
        yield "Scenarios", ", ".join(started.scenarios)
    yield "Harness", f"pd-harness {started.harness_version}" + (f", commit {started.commit}" if started.commit else "")
    if run.path is not None:
        yield "Stored in", str(run.path)


def load(run: Judged) -> str:
    """``10,000 requests, at most 32 at a time``: what was sent, which may be less than was asked for."""
    result = run.result
    parts = [plural(len(under_test(run.history)), "request")]
    # Workloads have their own, whatever the flags of the load say.
    if result.get("max_concurrency") and not run.rows:
        parts.append(f"at most {result['max_concurrency']:,} at a time")
    rate = result.get("request_rate")
    if isinstance(rate, int | float) and not run.rows:
        parts.append(f"{rate:g} requests per second")
    if result.get("duration"):
        parts.append(f"sent and answered in {duration(result['duration'])}")
    return ", ".join(parts)


def _proxy(deployment: Deployment) -> str:
    if deployment.proxy_url is None:
        return "none"
    own = {True: "the harness's own", False: "not the harness's own", None: "whose it is was not checked"}
    return f"{redact_url(deployment.proxy_url)} ({own[deployment.own_proxy]})"


SERVER_COLUMNS = ("Server", "Role", "Address", "Version", "Connectors", "Block size", "KV blocks", "Context", "KV type")


def servers(deployment: Deployment) -> list[tuple[str, ...]]:
    """A row for each server, under SERVER_COLUMNS."""
    return [_server(server) for server in deployment.servers]


def _server(server: Server) -> tuple[str, ...]:
    return (
        server.name,
        server.role.value,
        redact_url(server.url),
        server.version or "unknown",
        ", ".join(server.connector_names or ()) or "unknown",
        count(server.block_size),
        count(server.num_blocks),
        count(server.max_model_len),
        server.kv_dtype or "unknown",
    )


def commands(run: Judged) -> Iterator[Command]:
    """How to repeat the run, to judge it again, and to find the smallest load that still fails."""
    yield Command("again", "Run it again, with the same seed", run.overview.again)
    if run.path is None:
        return
    where = clean(shlex.quote(str(run.path)), None)
    yield Command("check", "Judge the stored run again, offline", f"python -m harness check {where}")
    if run.verdict is Verdict.INVALID:
        yield Command("shrink", "Search the smallest load that still fails", f"python -m harness shrink {where}")
    yield Command("rewrite", "Write this page again from the stored run", f"python -m harness report {where}")
