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
[[ $# -gt 0 ]] || cargo build --workspace --bin lare # as the tests build it: nothing is built twice
if [[ ! -x "$environment/bin/schemathesis" ]]; then
    python3 -m venv "$environment" && "$environment/bin/pip" install --quiet --requirement tools/clients/requirements.txt || exit 3
fi

source tools/start_server.sh
keys="$environment/keys"
echo "key-of-this-run" > "$keys"
start_server "$program" --api-key-file "$keys"

echo "== openai"
"$environment/bin/python" tools/clients/openai_client.py "$url" key-of-this-run || server_failed
echo "== schemathesis"
SCHEMATHESIS="$environment/bin/schemathesis" tools/clients/check_openapi.sh "$url" key-of-this-run || server_failed
echo "== bench-serve"
"$program" bench-serve "$url" --count 48 --concurrency 16 --steps 2,4,auto --api-key-file "$keys" || server_failed
echo "== SIGTERM"
kill -TERM "$server"
wait "$server" || server_failed
echo "it ended by itself"
