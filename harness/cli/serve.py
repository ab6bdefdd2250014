"""``python -m harness serve``: holds a deployment up, and says where it is."""

import asyncio
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from yarl import URL

from harness.cli.options import Options
from harness.cli.stored import stored_run
from harness.clock import MonotonicClock
from harness.deploy import Session, Surroundings, open_session
from harness.errors import DeployError, ExitCode, UsageError
from harness.facts import Deployment, Role
from harness.redact import redact_deployment
from harness.reports import make_progress
from harness.store.atomic import write_atomically

_WATCH = 0.5
"""Seconds between two looks at the processes."""


async def serve(options: Options) -> ExitCode:
    """Bring it up, print its facts on stdout as one JSON object, hold it until a signal comes.

    Raises:
        DeployError: a server died while it was held.

    """
    clock, report = MonotonicClock(), options.report
    with (
        stored_run(options, label="serve", latest=False) as store,
        make_progress(plain=report.plain, clock=clock) as progress,
    ):
        around = Surroundings(store.path, clock, progress.deploy)
        try:
            async with open_session(options.target, around) as session:
                progress.close()
                await _hold(session, options.state_file)
        except asyncio.CancelledError:
            return ExitCode.VALID  # a signal is how it is meant to end
    raise AssertionError("a deployment is held until it dies or a signal comes")


async def _hold(session: Session, state_file: Path | None) -> None:
    # Progress goes to stderr: stdout holds the facts and nothing else.
    text = json.dumps(facts(session.deployment))
    print(text, flush=True)
    if state_file is not None:
        _remember(state_file, text)
    try:
        while not (dead := session.nursery.dead()):  # noqa: ASYNC110 - processes set no event
            await asyncio.sleep(_WATCH)
    finally:
        _forget(state_file)
    raise DeployError("; ".join(dead.values()))


def _remember(state_file: Path, text: str) -> None:
    try:
        write_atomically(state_file, text + "\n")
    except OSError as error:
        raise UsageError(
            f"--state-file {state_file} cannot be written: {error.strerror}. Name a file in a directory "
            "that exists and can be written to."
        ) from error


def _forget(state_file: Path | None) -> None:
    """A state file that outlives its deployment would send somebody to ports that are closed or another's."""
    if state_file is not None:
        state_file.unlink(missing_ok=True)


def facts(deployment: Deployment) -> dict[str, Any]:
    """What a client of the deployment needs, as JSON: URLs, ports, block size, model.

    URLs without their credentials, like headers: whoever may read standard output or the state file (a CI job's log)
    is not whoever may use the servers. Who attaches gives the credentials again, as the one who started this did.
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
