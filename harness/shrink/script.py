"""A bug report's script: bash and curl against the servers themselves, without the harness. Pure.

It asks each request three times over: without transfer (a prefill server alone), as the deployment under test serves
it, and where the fault was left in a cache, once more through that cache. The transfer goes through the proxy if there
is one to name, else by hand: P is asked for one token with ``do_remote_decode``, and D gets P's ``kv_transfer_params``
verbatim. python3 does what takes JSON: it makes P's body, carries the parameters over, and compares.
"""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from harness.load.body import with_extra
from harness.scenario import Request, Route

_SALT = "@SALT@"
"""Replaced by one that is new for each run of the script: what an earlier one left in caches answers nothing."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a script is about."""

    batches: tuple[tuple[Request, ...], ...]
    """The load: requests of one batch are sent together, one batch after another."""
    concurrency: int
    probes: tuple[Request, ...]
    """Asked of a server itself afterwards, under the load's salt: what was wrong in its cache."""
    model: str
    prefill_url: str
    decode_url: str
    proxy_url: str | None
    """None: the two steps by hand."""
    about: tuple[str, ...] = ()
    """Lines of the opening comment."""
    header_names: tuple[str, ...] = ()
    """Headers whose values the user puts into the environment."""
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    reset: bool = False
    """Whether the prefix caches are emptied before the probes: what was wrong was in an offload tier."""
    counters: bool = False
    """Whether to show the servers' counters before and after: where the fault is in them."""


def script(told: Told) -> str:
    """The whole of it. Exits with 1 if an answer differs from the clean one, else with 0."""
    return "\n".join((*_opening(told), "", _FUNCTIONS, *_bodies(told), "", *_asking(told), _COMPARISON, ""))


def _opening(told: Told) -> Iterator[str]:
    yield "#!/usr/bin/env bash"
    yield from (f"# {line}" for line in told.about)
    yield "# Needs bash, curl and python3. Another deployment: P=URL D=URL PROXY=URL MODEL=NAME bash reproduce.sh"
    yield "# (PROXY= for the two steps, P then D, by hand). Exits with 1 if an answer differs from the clean one."
    yield "# Greedy answers may differ by a near tie with nothing wrong: the verdict rests on teacher forcing."
    yield "set -euo pipefail"
    yield f'P="${{P-{told.prefill_url}}}"          # a prefill server'
    yield f'D="${{D-{told.decode_url}}}"          # a decode server'
    yield f'PROXY="${{PROXY-{told.proxy_url or ""}}}"'
    yield f"MODEL=${{MODEL-{shlex.quote(told.model)}}}"
    headers = [f'-H "{name}: ${{{_variable(name)}:?give the value of {name} in it}}"' for name in told.header_names]
    yield f"HEADERS=(-H 'Content-Type: application/json'{''.join(' ' + header for header in headers)})"


def _variable(header: str) -> str:
    return "HEADER_" + "".join(letter if letter.isalnum() else "_" for letter in header).upper()


_FUNCTIONS = r"""export MODEL
SALT="reproduce-$(date +%s)-$$"
DIR="$(mktemp -d)"
trap 'rm -rf "$DIR"' EXIT
cd "$DIR"

# ask URL ID BODY ANSWER: one request
ask() { curl -sS "$1" "${HEADERS[@]}" -H "X-Request-Id: $2" -d "@$3" -o "$4" || echo "curl failed" > "$4"; }

# body NAME SALT OUT: a body with the salt, and the model's name, put in
body() {
  python3 -c '
import json, os, sys
body = json.load(open(sys.argv[1]))
body |= {"model": os.environ["MODEL"], "cache_salt": body["cache_salt"].replace("@SALT@", sys.argv[2])}
json.dump(body, open(sys.argv[3], "w"))' "$1.json" "$2" "$3"
}

# counters WHEN: what both servers have counted
counters() {
  for url in "$P" "$D"; do
    echo "counters $1, $url"
    curl -sS "$url/metrics" | grep -vE '^#|_bucket|_created' |
      grep -E 'vllm:(prompt_tokens_by_source|nixl_|kv_offload_|kv_cache_usage|.*prefix_cache_)' || true
  done
}

# clean N ID PATH: the reference, computed by P alone; a salt of its own keeps every cache and connector out
clean() { body "$1" "$SALT-clean-$1" "$1.clean"; ask "$P$3" "$2-clean" "$1.clean" "$1.right"; }

# alone N ID PATH URL: asked of one server, through its caches
alone() { body "$1" "$SALT" "$1.body"; ask "$4$3" "$2" "$1.body" "$1.served"; }

# transferred N ID PATH: prefill on P, KV transfer, decode on D
transferred() {
  if [ -n "$PROXY" ]; then alone "$1" "$2" "$3" "$PROXY"; return; fi
  body "$1" "$SALT" "$1.body"
  python3 -c '
import json, sys
body = json.load(open(sys.argv[1]))
for name in ("stream_options", "min_tokens", "prompt_logprobs", "echo", "return_token_ids"):
    body.pop(name, None)
if "messages" in body:
    body["max_completion_tokens"] = 1
remote = ("remote_block_ids", "remote_engine_id", "remote_request_id", "remote_host", "remote_port")
body |= {"max_tokens": 1, "n": 1, "stream": False}
body["kv_transfer_params"] = {"do_remote_decode": True, "do_remote_prefill": False, **dict.fromkeys(remote)}
json.dump(body, open(sys.argv[2], "w"))' "$1.body" "$1.to-p"
  ask "$P$3" "$2" "$1.to-p" "$1.from-p"
  # The parameters are good for one request. Without block ids they must not be forwarded.
  if python3 -c '
import json, sys
body, answer = (json.load(open(name)) for name in sys.argv[1:3])
params = answer["kv_transfer_params"]
assert params["remote_block_ids"]
json.dump(body | {"kv_transfer_params": params}, open(sys.argv[3], "w"))' "$1.body" "$1.from-p" "$1.to-d"
  then ask "$D$3" "$2" "$1.to-d" "$1.served"
  else cp "$1.from-p" "$1.served"; fi
}
"""


def _bodies(told: Told) -> Iterator[str]:
    yield "# --- the requests ---"
    for number, request in enumerate(_requests(told)):
        body = with_extra(_plain(request), model=told.model, extra=told.extra_body)
        yield f"cat > {number}.json <<'JSON'"
        yield json.dumps(body, separators=(", ", ": "))
        yield "JSON"


def _requests(told: Told) -> Sequence[Request]:
    return [request for batch in told.batches for request in batch] + list(told.probes)


def _plain(request: Request) -> Request:
    """Not streamed, and its salt under the script's: the harness's own is over."""
    salt = f"{_SALT}-{request.cache_salt}" if request.cache_salt else _SALT
    return replace(request, stream=False, cache_salt=salt)


def _asking(told: Told) -> Iterator[str]:
    requests = _requests(told)
    yield "# --- what is right: each request without transfer ---"
    for number, request in enumerate(requests):
        yield f"clean {_arguments(number, request)}"
    yield ""
    yield f"# --- as it is served, {told.concurrency} at a time ---"
    if told.counters:
        yield "counters before"
    first = 0
    for batch in told.batches:
        yield from _batch(told, list(enumerate(batch, first)))
        first += len(batch)
    if told.counters:
        yield "sleep 2  # the last notifications are counted some steps later"
        yield "counters after"
    if told.probes:
        yield ""
        yield "# --- what that left in a cache: beginnings of the prompts, asked of the server that holds them ---"
        if told.reset:
            yield "# Out of the offload tier: the prefix caches are emptied (VLLM_SERVER_DEV_MODE=1)."
            yield 'for url in "$P" "$D"; do sleep 2; curl -sS -X POST "$url/reset_prefix_cache"; done'
        yield from (_served(number, request) for number, request in enumerate(told.probes, first))


def _batch(told: Told, numbered: Sequence[tuple[int, Request]]) -> Iterator[str]:
    together = min(told.concurrency, len(numbered))
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


_COMPARISON = r"""
# --- the comparison ---
python3 - <<'PYTHON'
import json, pathlib, sys

def tokens(path):
    try:
        return json.loads(path.read_text())["choices"][0]["token_ids"]
    except (OSError, ValueError, LookupError, TypeError):
        return path.read_text(errors="replace")[:300] if path.exists() else "no answer"

wrong = 0
for right in sorted(pathlib.Path().glob("*.right"), key=lambda path: int(path.stem)):
    clean, served = tokens(right), tokens(right.with_suffix(".served"))
    wrong += clean != served
    print(f"request {right.stem}: {'as it should be' if clean == served else 'DIFFERS'}")
    if clean != served:
        print("  without transfer:", clean)
        print("  as served:       ", served)
sys.exit(wrong > 0)
PYTHON"""
