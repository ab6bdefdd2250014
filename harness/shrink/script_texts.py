"""What every bug report's script has: its exit codes, its functions in bash, its comparison in Python."""

EXIT_CODES = """\
# Exit codes:
#   0  every answer is the same as without transfer
#   1  an answer differs
#   2  the script cannot run: curl, python3 or a required environment variable is missing
#   3  unknown: an answer is missing, a server answered with an error or without token ids, or the prefill server
#      returned no kv_transfer_params. The servers' messages are printed."""

FUNCTIONS = r"""SALT="reproduce-$(date +%s)-$$"
# Requests to this machine do not use a proxy of the environment.
DIRECT="127.0.0.1,127.0.0.0/8,localhost,::1${no_proxy:+,$no_proxy}${NO_PROXY:+,$NO_PROXY}"
[ "${no_proxy-}${NO_PROXY-}" != "*" ] || DIRECT="*"

# ask URL ID BODY ANSWER: send one request. ANSWER.http gets its status, ANSWER.trouble the error if there is no answer.
ask() {
  curl -gsS --noproxy "$DIRECT" --connect-timeout 10 --max-time "$TIMEOUT" -H @headers -H "X-Request-Id: $2" \
    --data-binary "@$3" -o "$4" -w '%{http_code}' "$1" > "$4.http" 2> "$4.trouble" ||
    echo "no complete answer from ${1##*@}" >> "$4.trouble"
}

# body NAME SALT OUT: write a body with the salt and the model's name
body() {
  python3 -c '
import json, os, sys
body = json.load(open(sys.argv[1]))
body.update(model=os.environ["MODEL"], cache_salt=body["cache_salt"].replace("@SALT@", sys.argv[2]))
json.dump(body, open(sys.argv[3], "w"))' "$1.json" "$2" "$3"
}

# counters WHEN: print both servers' counters
counters() {
  for url in "$P" "$D"; do
    echo "counters $1, ${url##*@}"
    curl -gsS --noproxy "$DIRECT" --connect-timeout 10 --max-time "$TIMEOUT" -H @headers "$url/metrics" |
      grep -vE '^#|_bucket|_created' |
      grep -E 'vllm:(prompt_tokens_by_source|nixl_|kv_offload_|kv_cache_usage|.*prefix_cache_)' || echo "  none"
  done
}

# empty URL: empty the server's prefix cache, so that later requests read the offload tier
empty() {
  # Let pending writes to the tier finish.
  sleep "${PAUSE-2}"
  curl -gsS --noproxy "$DIRECT" --connect-timeout 10 --max-time "$TIMEOUT" -H @headers -X POST \
    -o reset.answer -w '%{http_code}' "$1/reset_prefix_cache" > reset.http 2> reset.trouble
  # A server that refuses because a request holds blocks answers 200 with false.
  if [ "$(cat reset.http)" != 200 ] || grep -q false reset.answer 2> /dev/null; then
    echo "the prefix cache of ${1##*@} was not emptied:" \
      "$(cat reset.trouble reset.answer 2> /dev/null | head -c 300 | tr '\n' ' ')" >> problems
  fi
  rm -f reset.answer
}

# clean N ID PATH: get the reference from P alone, under a salt of its own, so that nothing comes from a cache
clean() { body "$1" "$SALT-clean-$1" "$1.clean"; ask "$P$3" "$2-clean" "$1.clean" "$1.right"; }

# alone N ID PATH URL: send to one server, which may use its caches
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
  # The parameters are valid for one request. Without block ids they must not be forwarded.
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

COMPARISON = r"""
# --- the comparison ---
python3 - <<'PYTHON'
import json, pathlib, sys


def read(name):
    path = pathlib.Path(name)
    return path.read_text(errors="replace").strip() if path.exists() else ""


def message(text):
    # The error message in an answer that is JSON, else the answer's text.
    try:
        error = json.loads(text)
        error = error.get("error") or error.get("detail") or error
        text = str(error.get("message") or error) if isinstance(error, dict) else str(error)
    except (ValueError, AttributeError):
        pass
    return " ".join(text.split())[:300] or "(nothing)"


def answered(name):
    # The answer's body, or why there is none.
    trouble, status, text = read(name + ".trouble"), read(name + ".http"), read(name)
    if trouble:
        return None, message(trouble)
    if status != "200":
        return None, "HTTP %s: %s" % (status, message(text)) if status else "it was not sent"
    return text, ""


def tokens(name):
    # The token ids of all choices, or why there are none.
    text, trouble = answered(name)
    if trouble:
        return None, trouble
    try:
        choices = json.loads(text)["choices"]
        found = [choice["token_ids"] for choice in sorted(choices, key=lambda choice: choice.get("index") or 0)]
        reasons = [choice.get("finish_reason") for choice in choices]
    except (ValueError, LookupError, TypeError, AttributeError):
        return None, "no token ids: " + message(text)
    if not found or not all(isinstance(ids, list) and ids for ids in found):
        return None, "no token ids: " + message(text)
    if "abort" in reasons or "error" in reasons:
        return None, "finish_reason " + ", ".join(map(str, reasons))
    return found, ""


def served(number):
    if not pathlib.Path(number + ".not-handed-over").exists():
        return tokens(number + ".served")
    text, trouble = answered(number + ".from-p")
    return None, "the prefill server: " + (trouble or "no kv_transfer_params with block ids: " + message(text))


def compare():
    numbers = sorted((path.stem for path in pathlib.Path().glob("*.json") if path.stem.isdigit()), key=int)
    differ, unknown = 0, 0
    for number in numbers:
        (clean, no_clean), (got, not_got) = tokens(number + ".right"), served(number)
        if clean is None or got is None:
            unknown += 1
            print("request %s: UNKNOWN" % number)
            for trouble, what in ((no_clean, "without transfer"), (not_got, "as served")):
                print("  %-17s %s" % (what + ":", trouble or "answered"))
        elif clean == got:
            print("request %s: right" % number)
        else:
            differ += 1
            print("request %s: DIFFERS" % number)
            print("  without transfer:", *clean)
            print("  as served:       ", *got)
    for line in read("problems").splitlines():
        unknown += 1
        print("UNKNOWN:", line)
    return 1 if differ else 3 if unknown or not numbers else 0


try:
    code = compare()
except Exception as error:
    print("UNKNOWN: the comparison itself failed: %s: %s" % (type(error).__name__, error))
    code = 3
sys.exit(code)
PYTHON"""
