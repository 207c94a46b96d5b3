#!/bin/sh
# The units end before their program goes; a new version restarts them instead.
set -e
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then
  systemctl disable --now afterglow.service afterglow-ingester.service afterglow-querier.service afterglow-agent.service
fi
