#!/usr/bin/env bash
# What vLLM 0.32.0 does with references to KV (kv_transfer_params) that no proxy would hand to a decode server.
#
#   examples/bad_references.sh PREFILL_URL DECODE_URL MODEL ROW
#
# ROW is one of (each needs two requests, and those marked * end the decode server):
#   good        as prefill gave it: 200, the right output
#   reordered   the blocks in the opposite order: 200, a wrong output
#   surplus     the first block once more at the end: 200, a wrong output
#   nameless *  without remote_request_id: no answer, and the engine ends when curl gives up after ten seconds
#   truncated * without the last block: 500, and the engine ends
#   empty *     no blocks: 500, and the engine ends
#   expired     kept past its lease, until prefill gave the blocks to two other prompts: 200, a wrong output
#
# A pair to try it on: python -m harness serve --state-file pair.json
# For "expired" it needs short leases and few blocks: --nixl-config '{"kv_lease_duration": 3}' --num-gpu-blocks 40
# --engine-arg '--max-model-len 1024'
set -euo pipefail
prefill=$1 decode=$2 model=$3 row=$4

# The prompt is new each time, so that decode does not find it in its cache, and long enough for several blocks.
body() {  # the fields to add, as JSON; the prompt's length
  python3 -c 'import json,random,sys
draw = random.Random(int(sys.argv[2]))
prompt = [draw.randrange(300, 1500) for _ in range(int(sys.argv[4]))]
print(json.dumps({"model": sys.argv[1], "prompt": prompt, "temperature": 0, **json.loads(sys.argv[3])}))' \
    "$model" "$seed" "$1" "${2:-400}"
}
ask() { curl -sS --max-time 10 -H 'Content-Type: application/json' -w '\nHTTP %{http_code}\n' -d @- "$1/v1/completions"; }

seed=$RANDOM$RANDOM
hold='{"max_tokens": 1, "kv_transfer_params": {"do_remote_decode": true, "do_remote_prefill": false,
  "remote_engine_id": null, "remote_request_id": null, "remote_block_ids": null, "remote_host": null,
  "remote_port": null}}'
answer=$(body "$hold" | ask "$prefill" | head -n 1)
params=$(python3 -c 'import json,sys
params, row = json.loads(sys.argv[1])["kv_transfer_params"], sys.argv[2]
blocks = params["remote_block_ids"][0]
changed = {"reordered": blocks[::-1], "surplus": blocks + blocks[:1], "truncated": blocks[:-1]}
params["remote_block_ids"] = [] if row == "empty" else [changed.get(row, blocks)]
if row == "nameless":
    del params["remote_request_id"]
print(json.dumps({"max_tokens": 8, "kv_transfer_params": params}))' "$answer" "$row")
if [ "$row" = expired ]; then
  sleep 8
  mine=$seed
  for seed in $((mine + 1)) $((mine + 2)); do body '{"max_tokens": 1}' 950 | ask "$prefill" >/dev/null; done
  seed=$mine
fi
echo "--- with the reference ($row):"
body "$params" | ask "$decode" || true
echo "--- the right output, computed by prefill itself:"
body '{"max_tokens": 8}' | ask "$prefill"
