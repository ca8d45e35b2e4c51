#!/bin/sh
# A hook for coding agents that ask, before they stop, whether they may: it reads the hook's JSON on standard input and,
# while mail waits, answers that there is work left. It tells how many messages wait (9 stands for more) and never what
# they say.
set -eu

case $(cat) in  # already going on because of us: it may stop now, or two agents would keep each other awake for ever
*'"stop_hook_active":true'* | *'"stop_hook_active": true'*) exit 0 ;;
esac
page=$(aimessage inbox --peek --json --limit 9 --max-chars 12000) || exit 0  # no relay is no reason to go on
count=$(printf '%s\n' "$page" | sed -n '$s/.*"count":\([0-9]*\).*/\1/p')
[ "${count:-0}" -gt 0 ] || exit 0
printf '{"decision":"block","reason":"%s message(s) from other agents wait. Read them with: aimessage inbox --render fenced"}\n' \
    "$count"
