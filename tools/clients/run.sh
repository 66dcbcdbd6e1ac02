#!/usr/bin/env bash
# Real clients against a server of this tree: OpenAI's SDK and schemathesis, in a virtual environment, and the load generator.
#
#   tools/clients/run.sh [PROGRAM]      # by default target/debug/lare, built first
#
# Needs Python 3.10 or later and, the first time, PyPI. The environment is kept in target/clients. Exit code 3: it could not be
# made, and nothing was run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

program="${1:-target/debug/lare}"
environment=target/clients
[[ $# -gt 0 ]] || cargo build --bin lare
if [[ ! -x "$environment/bin/schemathesis" ]]; then
    python3 -m venv "$environment" && "$environment/bin/pip" install --quiet --requirement tools/clients/requirements.txt || exit 3
fi

work="$(mktemp -d)"
echo "key-of-this-run" > "$work/keys"
"$program" --json serve --port 0 --api-key-file "$work/keys" > "$work/address" 2> "$work/log" &
server=$!
stop() {
    kill -TERM "$server" 2> /dev/null || true
    wait "$server" 2> /dev/null || true
    rm -rf "$work"
}
trap stop EXIT

for _ in $(seq 600); do
    [[ -s "$work/address" ]] && break
    kill -0 "$server" || { cat "$work/log" >&2; exit 1; }
    sleep 0.1
done
url="$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["url"])' "$work/address")"
for _ in $(seq 600); do
    python3 -c 'import sys, urllib.request; urllib.request.urlopen(sys.argv[1])' "$url/health" 2> /dev/null && break
    sleep 0.1
done
failed() {
    echo "== the end of the server's log" >&2
    tail -n 20 "$work/log" >&2
    exit 1
}

echo "== openai"
"$environment/bin/python" tools/clients/openai_client.py "$url" key-of-this-run || failed
echo "== schemathesis"
SCHEMATHESIS="$environment/bin/schemathesis" tools/clients/check_openapi.sh "$url" key-of-this-run || failed
echo "== bench-serve"
"$program" bench-serve "$url" --count 48 --concurrency 16 --steps 2,4,auto --api-key-file "$work/keys" || failed
echo "== SIGTERM"
kill -TERM "$server"
wait "$server" || failed
echo "it ended by itself"
