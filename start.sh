#!/bin/sh
# Starts a relay, or shows what one is for:
#
#   ./start.sh [aimessage-server options]   honours PORT (8080), DB_PATH (./data) and LOG_FORMAT (human lines, or json)
#   ./start.sh demo                         two agents talk through a relay that can read nothing
#
# The first run makes .venv and installs the locked packages into it; later runs start at once, offline too.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
. "$root/scripts/venv.sh"

# An environment that ./test.sh made holds all of this and more.
stamped dev "$root/requirements/dev.txt" "$root/pyproject.toml" \
    || ready runtime "$root/requirements/runtime.txt" "$root/requirements/build.txt"

if [ "${1:-}" = demo ]; then
    shift
    exec "$venv/bin/python" "$root/demo/demo.py" "$@"
fi

say "starting the relay"
exec "$venv/bin/aimessage-server" "$@"
