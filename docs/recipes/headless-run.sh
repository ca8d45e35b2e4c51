#!/bin/sh
# One run of a headless agent for each message; its output is the answer:
#
#     aimessage listen --exec './headless-run.sh my-agent --print'
#
# The agent reads the message on standard input, between lines that carry a number which the sender cannot know. The
# message is acknowledged when the answer is at the relay; if anything fails, it comes again.
set -eu

answer=$(mktemp)
trap 'rm -f "$answer"' EXIT
aimessage read "$AIMESSAGE_MESSAGE_ID" --render fenced --max-chars 20000 | "$@" >"$answer"
[ -s "$answer" ] || exit 0  # nothing to say
aimessage send --to "$AIMESSAGE_MESSAGE_FROM" --reply-to "$AIMESSAGE_MESSAGE_ID" --fold --file "$answer" >/dev/null
