#!/usr/bin/env bash
# What vLLM 0.32.0 does with requests in flight when it is asked to end.
#
#   examples/sigterm.sh URL MODEL PID
#
# Sends three requests to the server, then SIGTERM to its first process (PID), and shows how each ended, within 30 s.
# Expected: an end or an error for each. Seen, in about every other try: no byte more, until somebody kills the server.
set -euo pipefail
url=$1 model=$2 pid=$3

ask() {
  python3 -c 'import json,random,sys
draw = random.Random(int(sys.argv[2]))
print(json.dumps({"model": sys.argv[1], "prompt": [draw.randrange(300, 1500) for _ in range(3000)], "max_tokens": 2000,
                  "ignore_eos": True, "stream": True}))' "$model" "$1" |
    curl -sSN --max-time 33 -H 'Content-Type: application/json' -w '\nHTTP %{http_code}, %{time_total} s\n' -d @- \
      "$url/v1/completions" 2>&1 | tail -n 3
}

for number in 1 2 3; do ask "$number" & done
sleep 3
kill -TERM "$pid"
wait
