#!/bin/sh
# `make uninstall`: takes away what `make install` put there. Runs, specs and a changed configuration stay.
set -eu

: "${PREFIX:=/opt/trainerd}" "${DESTDIR:=}"
: "${BINDIR:=/usr/local/bin}" "${LIBDIR:=/usr/local/lib}" "${SYSCONFDIR:=/etc}"
staged=$DESTDIR
DESTDIR=${DESTDIR%/}
source=$(cd "$(dirname "$0")/.." && pwd)
target=$DESTDIR$PREFIX
marker=.installed-by-trainerd
state=/var/lib/trainerd

say() { echo "uninstall: $*"; }
fail() { echo "uninstall: $*" >&2; exit 1; }

if [ -e "$target" ] && [ ! -e "$target/$marker" ]; then
    fail "$target is not of trainerd's making: nothing was removed"
fi

is_managed() { [ -z "$staged" ] && [ "$(id -u)" = 0 ] && [ -d /run/systemd/system ]; }
if is_managed && [ -e "$LIBDIR/systemd/system/trainerd.service" ]; then
    say "draining all jobs"
    systemctl disable --quiet --now trainerd
fi

rm -rf "$target" "$target.new"
rm -f "$DESTDIR$LIBDIR/systemd/system/trainerd.service" "$DESTDIR$LIBDIR/systemd/user/trainerd.service" \
    "$DESTDIR$LIBDIR/sysusers.d/trainerd.conf" "$DESTDIR$LIBDIR/tmpfiles.d/trainerd.conf"
link=$DESTDIR$BINDIR/trainerd
if [ "$(readlink "$link" 2> /dev/null)" = "$PREFIX/bin/trainerd" ]; then rm -f "$link"; fi
configuration=$DESTDIR$SYSCONFDIR/trainerd/trainerd.toml
if cmp -s "$source/systemd/trainerd.toml" "$configuration"; then rm -f "$configuration"; fi
rmdir "$DESTDIR$SYSCONFDIR/trainerd" 2> /dev/null || true
# Folders that are empty by now and are nobody else's to miss.
for folder in "$LIBDIR/systemd/system" "$LIBDIR/systemd/user" "$LIBDIR/systemd" "$LIBDIR/sysusers.d" "$LIBDIR/tmpfiles.d"; do
    rmdir "$DESTDIR$folder" 2> /dev/null || true
done

if is_managed; then
    systemctl daemon-reload
    systemctl reset-failed trainerd 2> /dev/null || true
fi

say "trainerd is removed"
if [ -e "$configuration" ]; then say "kept $configuration: it was changed"; fi
if [ -z "$DESTDIR" ] && [ -d "$state" ]; then
    say "kept $state, with all specs, runs and checkpoints, and the user trainerd, to whom they belong"
    say "to be rid of these too:  rm -r $state; userdel trainerd"
fi
