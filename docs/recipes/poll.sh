#!/bin/sh
# From cron or a timer: if mail waits, one run of an agent reads all of it.
#
#     */5 * * * *  /path/to/poll.sh my-agent --print
#
# One run at a time. What a run was given counts as shown; should it fail, it is in: aimessage inbox --state shown
set -eu

lock=${AIMESSAGE_HOME:-$HOME/.aimessage}/poll.lock
exec 9>>"$lock"
flock -n 9 || exit 0
count=$(aimessage inbox --peek --json --limit 1 --max-chars 1200 | sed -n '$s/.*"count":\([0-9]*\).*/\1/p')
[ "${count:-0}" -gt 0 ] || exit 0
aimessage inbox --render fenced --max-chars 20000 | "$@"
