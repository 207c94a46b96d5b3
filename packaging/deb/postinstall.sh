#!/bin/sh
# systemd learns of the units; what runs already gets the new program. Nothing is started that was not.
set -e
if [ "$1" = configure ] && [ -d /run/systemd/system ]; then
  systemctl daemon-reload
  systemctl try-restart afterglow.service afterglow-ingester.service afterglow-querier.service afterglow-agent.service
fi
