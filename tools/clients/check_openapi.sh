#!/usr/bin/env bash
# Holds a running server to its own description: schemathesis makes requests from /openapi.json, valid and not, and looks
# at status, type and shape of every answer.
#
#   tools/clients/check_openapi.sh http://127.0.0.1:8080 [KEY]
#
# One check is left out: that every request which fits the description is answered with 200. A description of fields cannot
# say that the model wants exactly one picture, or which base64 is one.
set -euo pipefail

url="$1"
key="${2:-none}"
schemathesis="${SCHEMATHESIS:-schemathesis}"

"$schemathesis" run "$url/openapi.json" \
    --url "$url" \
    --header "Authorization: Bearer $key" \
    --exclude-checks positive_data_acceptance \
    --max-examples "${EXAMPLES:-40}" \
    --seed 1 \
    --request-timeout 60 \
    --workers 2
