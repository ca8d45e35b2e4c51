#!/bin/sh
# Measures what AI Message costs and what the machine under it costs, in one run:
#
#   ./bench.sh                     everything, three interleaved rounds (about 12 minutes)
#   ./bench.sh --only send,relay   some of it      ./bench.sh --list   what there is
#   ./bench.sh --rounds 1 --save docs/performance.json --plots docs/plots
#   ./bench.sh --growth            how the figures grow, instead
#   ./bench.sh --against HEAD~1    the same figures of another commit, interleaved with these
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
cd "$root"
unset PYTHONDONTWRITEBYTECODE PYTHONUNBUFFERED LOG_FORMAT PORT DB_PATH AIMESSAGE_HOME AIMESSAGE_AGENT AIMESSAGE_SERVER AIMESSAGE_USERNAME AIMESSAGE_TOKEN
. "$root/scripts/venv.sh"
ready dev "$root/requirements/dev.txt"
# What a user has: other packages of a developer's cost a process 10 ms, because libraries look for them.
venv="$root/.venv-user"
ready runtime "$root/requirements/runtime.txt" "$root/requirements/build.txt"
python="$root/.venv/bin/python"  # only now: making an environment looks for a Python under the same name
AIMESSAGE_USER_BIN="$venv/bin" PYTHONPATH="$root/src:$root/tests:$root" exec "$python" -m benchmarks "$@"
