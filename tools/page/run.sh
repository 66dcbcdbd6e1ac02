#!/usr/bin/env bash
# The page's checks in Chromium: against the mock with its recorded answers, then against a server of this tree.
#
#   tools/page/run.sh [PROGRAM]      # by default target/debug/lare, built first
#
# Needs Debian's chromium, Node.js 20 or later and, the first time, npm's registry. Exit code 3: something of that is missing, and
# nothing was run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

program="${1:-target/debug/lare}"
[[ -x /usr/bin/chromium ]] && command -v npm > /dev/null || exit 3
[[ -d tools/page/node_modules ]] || npm ci --prefix tools/page --no-audit --no-fund --silent || exit 3
[[ $# -gt 0 ]] || cargo build --workspace --bin lare # as the tests build it: nothing is built twice

echo "== the page and recorded answers"
node tools/page/check.mjs

source tools/start_server.sh
start_server "$program"
echo "== the page and $program"
node tools/page/check.mjs "$url" || server_failed
