#!/bin/sh
# Types one line into the tmux pane where an interactive agent sits; never a word of what the peer wrote:
#
#     aimessage listen --exec './tmux-nudge.sh work:0.0'
#
# $1: the pane; $2: the tmux server's socket name, if it is not the default one.
set -eu

line="A message from $AIMESSAGE_MESSAGE_FROM waits: aimessage read $AIMESSAGE_MESSAGE_ID --render fenced"
tmux ${2:+-L "$2"} send-keys -t "$1" -l "$line"
tmux ${2:+-L "$2"} send-keys -t "$1" Enter
