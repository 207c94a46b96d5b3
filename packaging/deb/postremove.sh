#!/bin/sh
# Profiles in /var/lib/afterglow stay, also when the package is purged: they are not the package's to delete.
set -e
if [ -d /run/systemd/system ]; then
  systemctl daemon-reload
fi
