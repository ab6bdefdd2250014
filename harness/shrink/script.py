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
from harness.redact import redact_url
from harness.scenario import Request, Route

_SALT = "@SALT@"
"""Replaced by one that is new for each run of the script: what an earlier one left in caches answers nothing."""


@dataclass(frozen=True, slots=True)
class ScriptContent:
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


def script(told: ScriptContent) -> str:
    """The whole of it. Its exit codes, one for each outcome, stand at its head."""
    return "\n".join((*_opening(told), "", _FUNCTIONS, *_bodies(told), "", *_asking(told), _COMPARISON, ""))


_EXIT_CODES = """\
# Exit codes:
#   0  every answer is as it is without transfer
#   1  an answer differs
#   2  it cannot be run as it is: curl or python3 is missing, or a variable that it asks for
#   3  it could not be judged: an answer is missing, a server answered with an error or without token ids, or the
#      prefill server handed nothing over. What the servers said is printed."""


def _opening(told: ScriptContent) -> Iterator[str]:
    yield "#!/usr/bin/env bash"
    yield from (f"# {line}" for text in told.about for line in text.splitlines())
    yield _EXIT_CODES
    yield "# Needs bash, curl and python3. Another deployment: P=URL D=URL PROXY=URL MODEL=NAME bash reproduce.sh"
    yield "# (PROXY= for the two steps, P then D, by hand). TIMEOUT=SECONDS is the time that one request may take."
    yield "# Greedy answers may differ by a near tie with nothing wrong: the verdict rests on teacher forcing."
    yield "set -uo pipefail"
    yield 'stop() { echo "$1" >&2; exit 2; }'
    yield 'for tool in curl python3; do command -v "$tool" > /dev/null || stop "$tool is missing: install it."; done'
    if told.concurrency > 1:
        yield "(( BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] >= 403 )) ||"
        yield '  stop "bash $BASH_VERSION is too old: it takes 4.3 or later to send several requests at once."'
    yield from _address("P", told.prefill_url, "a prefill server")
    yield from _address("D", told.decode_url, "a decode server")
    yield from _address("PROXY", told.proxy_url or "", "the proxy; empty: by hand")
    yield f"export MODEL=${{MODEL-{shlex.quote(told.model)}}}"
    yield 'TIMEOUT="${TIMEOUT-120}"'
    for name in told.header_names:
        yield f'( : "${{{_variable(name)}:?give the value of the header {_plain_name(name)} in it}}" ) || exit 2'
    yield 'DIR="$(mktemp -d)" || stop "There is no directory for temporary files."'
    yield 'cd "$DIR" || stop "There is no directory for temporary files."'
    yield "trap 'kill $(jobs -p) 2> /dev/null; rm -rf \"$DIR\"' EXIT"
    # In a file and not among curl's arguments, which every user of the machine can read.
    yield "echo 'Content-Type: application/json' > headers"
    for name in told.header_names:
        yield f"""printf '%s: %s\\n' {shlex.quote(name)} "${_variable(name)}" >> headers"""


def _address(variable: str, url: str, what: str) -> Iterator[str]:
    """A URL that the user may override; must, where it has credentials: a script is passed on."""
    shown = redact_url(url)
    if shown == url:
        yield f"{variable}=${{{variable}-{shlex.quote(url)}}}  # {what}"
    else:
        yield f"# {variable}: {what}, {shown}"
        yield f'( : "${{{variable}?give its URL with the credentials, which are not stored}}" ) || exit 2'
    yield f'{variable}="${{{variable}%/}}"'


def _plain_name(header: str) -> str:
    """As it may stand in double quotes."""
    return "".join(letter for letter in header if letter.isalnum() or letter in "-_")


def _variable(header: str) -> str:
    return "HEADER_" + "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in header).upper()


_FUNCTIONS = r"""SALT="reproduce-$(date +%s)-$$"
# No proxy of the environment lies on the way to this machine itself.
DIRECT="127.0.0.1,127.0.0.0/8,localhost,::1${no_proxy:+,$no_proxy}${NO_PROXY:+,$NO_PROXY}"
[ "${no_proxy-}${NO_PROXY-}" != "*" ] || DIRECT="*"

# ask URL ID BODY ANSWER: one request. ANSWER.http is its status, ANSWER.trouble what kept it from being answered.
ask() {
  curl -gsS --noproxy "$DIRECT" --connect-timeout 10 --max-time "$TIMEOUT" -H @headers -H "X-Request-Id: $2" \
    --data-binary "@$3" -o "$4" -w '%{http_code}' "$1" > "$4.http" 2> "$4.trouble" ||
    echo "no whole answer from ${1##*@}" >> "$4.trouble"
}

# body NAME SALT OUT: a body with the salt, and the model's name, put in
body() {
  python3 -c '
import json, os, sys
body = json.load(open(sys.argv[1]))
body.update(model=os.environ["MODEL"], cache_salt=body["cache_salt"].replace("@SALT@", sys.argv[2]))
json.dump(body, open(sys.argv[3], "w"))' "$1.json" "$2" "$3"
}

# counters WHEN: what both servers have counted
counters() {
  for url in "$P" "$D"; do
    echo "counters $1, ${url##*@}"
    curl -gsS --noproxy "$DIRECT" --connect-timeout 10 --max-time "$TIMEOUT" -H @headers "$url/metrics" |
      grep -vE '^#|_bucket|_created' |
      grep -E 'vllm:(prompt_tokens_by_source|nixl_|kv_offload_|kv_cache_usage|.*prefix_cache_)' || echo "  none"
  done
}

# emptied URL: its prefix cache is emptied, so that what comes next is read from the offload tier
emptied() {
  sleep "${PAUSE-2}"  # what is being written to the tier is written
  curl -gsS --noproxy "$DIRECT" --connect-timeout 10 --max-time "$TIMEOUT" -H @headers -X POST \
    -o emptied.said -w '%{http_code}' "$1/reset_prefix_cache" > emptied.http 2> emptied.trouble
  # A server that refuses while a request holds blocks says false in a 200.
  if [ "$(cat emptied.http)" != 200 ] || grep -q false emptied.said 2> /dev/null; then
    echo "the prefix cache of ${1##*@} was not emptied:" \
      "$(cat emptied.trouble emptied.said 2> /dev/null | head -c 300 | tr '\n' ' ')" >> untold
  fi
  rm -f emptied.said
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
params = dict(dict.fromkeys(remote), do_remote_decode=True, do_remote_prefill=False)
body.update(max_tokens=1, n=1, stream=False, kv_transfer_params=params)
json.dump(body, open(sys.argv[2], "w"))' "$1.body" "$1.to-p"
  ask "$P$3" "$2" "$1.to-p" "$1.from-p"
  # The parameters are good for one request. Without block ids they must not be forwarded.
  if python3 -c '
import json, sys
body, answer = (json.load(open(name)) for name in sys.argv[1:3])
params = answer["kv_transfer_params"]
assert params["remote_block_ids"]
json.dump(dict(body, kv_transfer_params=params), open(sys.argv[3], "w"))' "$1.body" "$1.from-p" "$1.to-d" 2> /dev/null
  then ask "$D$3" "$2" "$1.to-d" "$1.served"
  else : > "$1.not-handed-over"; fi
}
"""


def _bodies(told: ScriptContent) -> Iterator[str]:
    yield "# --- the requests ---"
    for number, request in enumerate(_requests(told)):
        body = with_extra(_plain(request), model=told.model, extra=told.extra_body)
        yield f"cat > {number}.json <<'JSON'"
        yield json.dumps(body, separators=(", ", ": "))
        yield "JSON"


def _requests(told: ScriptContent) -> Sequence[Request]:
    return [request for batch in told.batches for request in batch] + list(told.probes)


def _plain(request: Request) -> Request:
    """Not streamed, and its salt under the script's: the harness's own is over."""
    salt = f"{_SALT}-{request.cache_salt}" if request.cache_salt else _SALT
    return replace(request, stream=False, cache_salt=salt)


def _asking(told: ScriptContent) -> Iterator[str]:
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
        yield 'sleep "${PAUSE-2}"  # the last notifications are counted some steps later'
        yield "counters after"
    if told.probes:
        yield ""
        yield "# --- what that left in a cache: beginnings of the prompts, asked of the server that holds them ---"
        if told.reset:
            yield "# Out of the offload tier: the prefix caches are emptied (VLLM_SERVER_DEV_MODE=1)."
            yield 'for url in "$P" "$D"; do emptied "$url"; done'
        yield from (_served(number, request) for number, request in enumerate(told.probes, first))


def _batch(told: ScriptContent, numbered: Sequence[tuple[int, Request]]) -> Iterator[str]:
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


def read(name):
    path = pathlib.Path(name)
    return path.read_text(errors="replace").strip() if path.exists() else ""


def words(text):
    # What the server itself says is wrong, where it says so in JSON.
    try:
        said = json.loads(text)
        said = said.get("error") or said.get("detail") or said
        text = str(said.get("message") or said) if isinstance(said, dict) else str(said)
    except (ValueError, AttributeError):
        pass
    return " ".join(text.split())[:300] or "(nothing)"


def answered(name):
    # The answer's body, or why there is none.
    trouble, status, text = read(name + ".trouble"), read(name + ".http"), read(name)
    if trouble:
        return None, words(trouble)
    if status != "200":
        return None, "HTTP %s: %s" % (status, words(text)) if status else "it was not asked"
    return text, ""


def tokens(name):
    # The token ids of all choices, or why there are none.
    text, trouble = answered(name)
    if trouble:
        return None, trouble
    try:
        choices = json.loads(text)["choices"]
        told = [choice["token_ids"] for choice in sorted(choices, key=lambda choice: choice.get("index") or 0)]
        reasons = [choice.get("finish_reason") for choice in choices]
    except (ValueError, LookupError, TypeError, AttributeError):
        return None, "no token ids: " + words(text)
    if not told or not all(isinstance(ids, list) and ids for ids in told):
        return None, "no token ids: " + words(text)
    if "abort" in reasons or "error" in reasons:
        return None, "finish_reason " + ", ".join(map(str, reasons))
    return told, ""


def served(number):
    if not pathlib.Path(number + ".not-handed-over").exists():
        return tokens(number + ".served")
    text, trouble = answered(number + ".from-p")
    return None, "the prefill server: " + (trouble or "no kv_transfer_params with block ids: " + words(text))


def compare():
    numbers = sorted((path.stem for path in pathlib.Path().glob("*.json") if path.stem.isdigit()), key=int)
    differ, unknown = 0, 0
    for number in numbers:
        (clean, no_clean), (got, not_got) = tokens(number + ".right"), served(number)
        if clean is None or got is None:
            unknown += 1
            print("request %s: COULD NOT BE JUDGED" % number)
            for trouble, what in ((no_clean, "without transfer"), (not_got, "as served")):
                print("  %-17s %s" % (what + ":", trouble or "answered"))
        elif clean == got:
            print("request %s: as it should be" % number)
        else:
            differ += 1
            print("request %s: DIFFERS" % number)
            print("  without transfer:", *clean)
            print("  as served:       ", *got)
    for line in read("untold").splitlines():
        unknown += 1
        print("COULD NOT BE JUDGED:", line)
    return 1 if differ else 3 if unknown or not numbers else 0


try:
    code = compare()
except Exception as error:
    print("COULD NOT BE JUDGED: the comparison itself failed: %s: %s" % (type(error).__name__, error))
    code = 3
sys.exit(code)
PYTHON"""
