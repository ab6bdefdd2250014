"""The script of a bug report: bash and curl commands that need the servers but not the harness. Pure.

The script sends each request without transfer (to a prefill server alone) and through the deployment under test. If the
fault was found in a cache, it also sends prefixes of the prompts to the server with this cache. If there is a proxy,
the script uses it. Otherwise it makes both steps by itself: it asks P for one token with ``do_remote_decode``, and
sends P's ``kv_transfer_params`` unchanged to D. It uses python3 to make P's body, to copy the parameters, and to
compare.
"""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from harness.load.body import with_extra
from harness.redact import redact_url
from harness.scenario import Request, Route
from harness.shrink.script_texts import COMPARISON, EXIT_CODES, FUNCTIONS

_SALT = "@SALT@"
"""Placeholder: each run of the script has a new salt, so that caches hold no blocks of an earlier run."""


@dataclass(frozen=True, slots=True)
class ScriptContent:
    """Everything that a script contains."""

    batches: tuple[tuple[Request, ...], ...]
    """The load. The requests of a batch are sent together, the batches one after another."""
    concurrency: int
    """Requests of a batch that are in flight at a time, unless they have times."""
    probes: tuple[Request, ...]
    """Prefixes that had a wrong answer from a cache. After the load, they are sent to the server with this cache."""
    model: str
    prefill_url: str
    decode_url: str
    proxy_url: str | None
    """None: the script makes both steps, prefill and decode, by itself."""
    about: tuple[str, ...] = ()
    """Lines of the comment at the top."""
    header_names: tuple[str, ...] = ()
    """Headers whose values the user must set in environment variables."""
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    reset: bool = False
    """Whether to empty the prefix caches before the probes, because the fault was in an offload tier."""
    times: Mapping[str, float] = field(default_factory=dict)
    """When requests are sent, in seconds after the first of their batch, by their ids; empty: at once."""
    counters: bool = False
    """Whether to show the servers' counters before and after the load, because the fault is in them."""


def script(content: ScriptContent) -> str:
    """The text of the script. A comment at its top lists the exit codes."""
    return "\n".join((*_opening(content), "", FUNCTIONS, *_bodies(content), "", *_asking(content), COMPARISON, ""))


def _opening(content: ScriptContent) -> Iterator[str]:
    yield "#!/usr/bin/env bash"
    yield from (f"# {line}" for text in content.about for line in text.splitlines())
    yield EXIT_CODES
    yield "# Needs bash, curl and python3. Another deployment: P=URL D=URL PROXY=URL MODEL=NAME bash reproduce.sh"
    yield "# (PROXY= to send to P, then to D, without a proxy). TIMEOUT=SECONDS limits the time of one request."
    yield "# Right greedy answers may differ in a near tie; the harness's own verdict comes from teacher forcing."
    yield "set -uo pipefail"
    yield 'stop() { echo "$1" >&2; exit 2; }'
    yield 'for tool in curl python3; do command -v "$tool" > /dev/null || stop "$tool is missing: install it."; done'
    if content.concurrency > 1 and not content.times:
        yield "(( BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] >= 403 )) ||"
        yield '  stop "bash $BASH_VERSION is too old: sending several requests at once needs 4.3 or later."'
    yield from _address("P", content.prefill_url, "a prefill server")
    yield from _address("D", content.decode_url, "a decode server")
    yield from _address("PROXY", content.proxy_url or "", "the proxy; empty: without a proxy")
    yield f"export MODEL=${{MODEL-{shlex.quote(content.model)}}}"
    yield 'TIMEOUT="${TIMEOUT-120}"'
    for name in content.header_names:
        yield f'( : "${{{_variable(name)}:?set it to the value of the header {_plain_name(name)}}}" ) || exit 2'
    yield 'DIR="$(mktemp -d)" || stop "There is no directory for temporary files."'
    yield 'cd "$DIR" || stop "There is no directory for temporary files."'
    yield "trap 'kill $(jobs -p) 2> /dev/null; rm -rf \"$DIR\"' EXIT"
    # Headers are put into a file, because every user of the machine can read curl's arguments.
    yield "echo 'Content-Type: application/json' > headers"
    for name in content.header_names:
        yield f"""printf '%s: %s\\n' {shlex.quote(name)} "${_variable(name)}" >> headers"""


def _address(variable: str, url: str, what: str) -> Iterator[str]:
    """A URL that the user may set in the environment, and must set if it had credentials, which are not written."""
    shown = redact_url(url)
    if shown == url:
        yield f"{variable}=${{{variable}-{shlex.quote(url)}}}  # {what}"
    else:
        yield f"# {variable}: {what}, {shown}"
        yield f'( : "${{{variable}?set it to the URL with its credentials, which are not stored}}" ) || exit 2'
    yield f'{variable}="${{{variable}%/}}"'


def _plain_name(header: str) -> str:
    """The header's name without characters that are special in double quotes."""
    return "".join(letter for letter in header if letter.isalnum() or letter in "-_")


def _variable(header: str) -> str:
    return "HEADER_" + "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in header).upper()


def _bodies(content: ScriptContent) -> Iterator[str]:
    yield "# --- the requests ---"
    for number, request in enumerate(_requests(content)):
        body = with_extra(_plain(request), model=content.model, extra=content.extra_body)
        yield f"cat > {number}.json <<'JSON'"
        yield json.dumps(body, separators=(", ", ": "))
        yield "JSON"


def _requests(content: ScriptContent) -> Sequence[Request]:
    return [request for batch in content.batches for request in batch] + list(content.probes)


def _plain(request: Request) -> Request:
    """The request without streaming, its salt prefixed with the script's salt."""
    salt = f"{_SALT}-{request.cache_salt}" if request.cache_salt else _SALT
    return replace(request, stream=False, cache_salt=salt)


def _asking(content: ScriptContent) -> Iterator[str]:
    requests = _requests(content)
    yield "# --- the references: each request without transfer ---"
    for number, request in enumerate(requests):
        yield f"clean {_arguments(number, request)}"
    yield ""
    how = "each at its time" if content.times else f"{content.concurrency} at a time"
    yield f"# --- the requests as served, {how} ---"
    if content.counters:
        yield "counters before"
    first = 0
    for batch in content.batches:
        numbered = list(enumerate(batch, first))
        yield from _at_their_times(content, numbered) if content.times else _batch(content, numbered)
        first += len(batch)
    if content.counters:
        yield "# The last notifications are counted some steps later."
        yield 'sleep "${PAUSE-2}"'
        yield "counters after"
    if content.probes:
        yield ""
        yield "# --- prefixes of the prompts, sent to the server that has them in a cache ---"
        if content.reset:
            yield "# To read the offload tier, empty the prefix caches first (needs VLLM_SERVER_DEV_MODE=1)."
            yield 'for url in "$P" "$D"; do empty "$url"; done'
        yield from (_served(number, request) for number, request in enumerate(content.probes, first))


def _at_their_times(content: ScriptContent, numbered: Sequence[tuple[int, Request]]) -> Iterator[str]:
    before = 0.0
    for number, request in numbered:
        at = content.times[request.request_id]
        if at > before:
            yield f"sleep {at - before:.3f}"
        yield f"{_served(number, request)} &"
        before = at
    yield "wait"


def _batch(content: ScriptContent, numbered: Sequence[tuple[int, Request]]) -> Iterator[str]:
    together = min(content.concurrency, len(numbered))
    for place, (number, request) in enumerate(numbered):
        if together == 1:
            yield _served(number, request)
            continue
        if place >= together:
            yield "wait -n || true"
        yield f"{_served(number, request)} &"
    if together > 1:
        yield "wait"


def _served(number: int, request: Request) -> str:
    if request.route is Route.PROXY:
        return f"transferred {_arguments(number, request)}"
    return f'alone {_arguments(number, request)} "${"P" if request.route is Route.PREFILL else "D"}"'


def _arguments(number: int, request: Request) -> str:
    return f"{number} {shlex.quote(request.request_id)} {request.endpoint}"
