#!/bin/sh
# Starts a relay, or shows what one is for:
#
#   ./start.sh [aimessage-server options]   honours PORT (8080), DB_PATH (./data) and LOG_FORMAT (human lines, or json)
#   ./start.sh demo                         two agents talk through a relay that can read nothing
#   ./start.sh cluster [server options]     two relays on three NATS nodes behind a balancer, on this machine
#
# The first run makes .venv and installs the locked packages into it; later runs start at once, offline too.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
. "$root/scripts/venv.sh"

# An environment that ./test.sh made holds all of this and more.
if ! stamped dev "$root/requirements/dev.txt" "$root/pyproject.toml"; then
    if [ "${1:-}" = cluster ] || stamped cluster "$root/requirements/runtime.txt" "$root/requirements/cluster.txt" \
        "$root/requirements/build.txt" "$root/pyproject.toml"; then
        ready cluster "$root/requirements/runtime.txt" "$root/requirements/cluster.txt" "$root/requirements/build.txt"
    else
        ready runtime "$root/requirements/runtime.txt" "$root/requirements/build.txt"
    fi
fi

case "${1:-}" in
    demo | cluster)
        what=$1
        shift
        exec "$venv/bin/python" "$root/demo/$what.py" "$@"
        ;;
esac

say "starting the relay"
exec "$venv/bin/aimessage-server" "$@"
