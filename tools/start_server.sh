# To be sourced: `start_server PROGRAM [lare serve options]` starts a server of the program on a free port and waits until it can
# answer. Then `url` is its address, `server` its process, and `server_log` its log; it ends with the script.

start_server() {
    local program="$1"
    server_work="$(mktemp -d)"
    server_log="$server_work/log"
    "$program" --json serve --port 0 "${@:2}" > "$server_work/address" 2> "$server_log" &
    server=$!
    trap stop_server EXIT
    for _ in $(seq 600); do
        [[ -s "$server_work/address" ]] && break
        kill -0 "$server" || { cat "$server_log" >&2; exit 1; }
        sleep 0.1
    done
    url="$(sed -n 's/.*"url":"\([^"]*\)".*/\1/p' "$server_work/address")"
    for _ in $(seq 600); do
        curl --silent --fail --output /dev/null "$url/health" && return
        sleep 0.1
    done
    server_failed
}

stop_server() {
    kill -TERM "$server" 2> /dev/null || true
    wait "$server" 2> /dev/null || true
    rm -rf "$server_work"
}

server_failed() {
    echo "== the end of the server's log" >&2
    tail -n 20 "$server_log" >&2
    exit 1
}
