#!/bin/sh
# The one door to every check: style, types, walls between the rooms, tests with coverage. Stops at the first failure.
#
#   ./test.sh                     everything
#   ./test.sh tests/e2ee -k kem   only these tests: the arguments go to pytest as they are
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
cd "$root"
unset LOG_FORMAT PORT DB_PATH AIMESSAGE_HOME AIMESSAGE_AGENT AIMESSAGE_SERVER AIMESSAGE_USERNAME AIMESSAGE_TOKEN
unset AIMESSAGE_OUTPUT AIMESSAGE_DEBUG AIMESSAGE_CA_FILE
. "$root/scripts/venv.sh"
ready dev "$root/requirements/dev.txt"

step() {  # $1: what is checked; the rest: the command
    what=$1
    shift
    printf '\n-- %s\n' "$what"
    "$@" || {
        printf '\nFAILED: %s\n   %s\n' "$what" "$*" >&2
        exit 1
    }
}

bin="$venv/bin"
if [ "$#" -gt 0 ]; then
    step "the chosen tests" "$bin/python" -m pytest "$@"
    exit 0
fi

step "lint" "$bin/ruff" check .
step "layout" "$bin/ruff" format --check .
step "types" "$bin/mypy"
step "walls between the rooms" "$bin/lint-imports" --no-cache
# What decides is measured, in one process. What talks to disks, sockets and commands runs in two, unmeasured:
# coverage would write its warnings into the output of the commands under test.
measured="tests/crypto tests/e2ee tests/wire $(echo tests/test_*.py)"
ignored=""
for path in $measured; do
    ignored="$ignored --ignore=$path"
done
# shellcheck disable=SC2086  # lists of paths of ours, without spaces
step "tests of what decides, measured" "$bin/python" -m coverage run -m pytest -q $measured
step "coverage of what decides" "$bin/python" -m coverage report
# shellcheck disable=SC2086
step "tests of what acts" "$bin/python" -m pytest -q -n 3 --dist loadfile $ignored
printf '\nAll checks passed.\n'
