#!/bin/sh
# For an agent that is told when a command in the background ends: start this there, and its end is the wake-up.
# It prints what came, fenced, and ends with 0; nothing is lost if it is killed.
set -u

while :; do
    aimessage wait --timeout 10m --limit 5 --render fenced
    code=$?
    case $code in
    124) ;;           # nothing came: again
    75) sleep 5 ;;    # the relay cannot be reached: again, soon
    *) exit "$code" ;;
    esac
done
