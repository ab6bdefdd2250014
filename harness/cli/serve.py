"""``python -m harness serve``: launches a deployment, prints its URLs, and keeps it running until a signal comes."""

import asyncio
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from yarl import URL

from harness.cli.options import Options
from harness.cli.places import unwritable
from harness.cli.stored import stored_run
from harness.clock import MonotonicClock
from harness.deploy import Session, Surroundings, open_session
from harness.errors import DeployError, ExitCode
from harness.facts import Deployment, Role
from harness.redact import redact_deployment
from harness.reports import make_progress
from harness.store.atomic import write_atomically

_WATCH = 0.5
"""Seconds between two checks of the processes."""


async def serve(options: Options) -> ExitCode:
    """Launch, print the deployment's facts on stdout as one JSON object, and wait for a signal.

    Raises DeployError if a server dies.
    """
    clock, report = MonotonicClock(), options.report
    with (
        stored_run(options, label="serve", latest=False) as store,
        make_progress(plain=report.plain, clock=clock) as progress,
    ):
        around = Surroundings(store.path, clock, progress)
        try:
            async with open_session(options.target, around) as session:
                progress.close()
                await _hold(session, options.state_file)
        except asyncio.CancelledError:
            # A signal is the normal end.
            return ExitCode.VALID
    raise AssertionError("serve ends with a signal or with a dead process")


async def _hold(session: Session, state_file: Path | None) -> None:
    # Progress is shown on stderr: stdout holds only the facts.
    text = json.dumps(facts(session.deployment))
    print(text, flush=True)
    if state_file is not None:
        try:
            write_atomically(state_file, text + "\n")
        except OSError as error:
            raise unwritable("--state-file", state_file, error) from error
    try:
        while not (dead := session.died()):  # noqa: ASYNC110 - processes set no event
            await asyncio.sleep(_WATCH)
    finally:
        _remove(state_file)
    raise DeployError("; ".join(one.text for one in dead))


def _remove(state_file: Path | None) -> None:
    """Remove the state file, since another program may get these ports after this deployment has ended."""
    if state_file is not None:
        state_file.unlink(missing_ok=True)


def facts(deployment: Deployment) -> dict[str, Any]:
    """The facts that a client of the deployment needs, as JSON: URLs, ports, block size, model.

    Credentials in URLs and headers are left out, since more people may read standard output and the state file (a CI
    job's log) than may use the servers. A client must know the credentials.
    """
    deployment = redact_deployment(deployment)
    first_prefill, first_decode = deployment.of(Role.PREFILL)[0], deployment.of(Role.DECODE)[0]
    return {
        "base_url": deployment.proxy_url,
        "prefill_urls": [server.url for server in deployment.of(Role.PREFILL)],
        "decode_urls": [server.url for server in deployment.of(Role.DECODE)],
        "proxy_port": _port(deployment.proxy_url),
        "prefill_port": _port(first_prefill.url),
        "decode_port": _port(first_decode.url),
        "block_size": first_decode.block_size,
        "model": deployment.model,
        "connectors": first_decode.connector_names,
        "device": deployment.device,
        "servers": [asdict(server) for server in deployment.servers],
    }


def _port(url: str | None) -> int | None:
    return None if url is None else URL(url).port
