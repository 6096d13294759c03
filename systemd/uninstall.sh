#!/bin/sh
# `make uninstall`: takes away what `make install` put there. Runs, specs and a changed configuration stay.
# `make uninstall-user`: the same for what `make install-user` put there (FOR_PERSON=1).
set -eu

: "${PREFIX:=/opt/trainerd}" "${DESTDIR:=}"
: "${BINDIR:=/usr/local/bin}" "${LIBDIR:=/usr/local/lib}" "${SYSCONFDIR:=/etc}" "${FOR_PERSON:=}"
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

. "$source/systemd/supervisors.sh"
is_managed() { [ -z "$staged" ] && [ -z "$FOR_PERSON" ] && [ "$(id -u)" = 0 ] && [ -d /run/systemd/system ]; }

# is_ours UNIT: whether a unit starts the program in PREFIX; another installation may have put it there.
is_ours() { grep -qF "ExecStart=$PREFIX/bin/trainerd " "$1" 2> /dev/null; }
system_unit=$DESTDIR$LIBDIR/systemd/system/trainerd.service
user_unit=$DESTDIR$LIBDIR/systemd/user/trainerd.service
is_of_system=
if [ -z "$FOR_PERSON" ] && is_ours "$system_unit"; then is_of_system=1; fi
if [ ! -e "$target" ] && [ -z "$is_of_system" ] && ! is_ours "$user_unit"; then
    say "nothing of trainerd is installed in $target"
    exit 0
fi

# Their program is not deleted under them.
if [ -z "$staged" ]; then
    main=0
    if is_managed && [ -n "$is_of_system" ]; then main=$(main_pid); fi
    own=
    if [ -n "$FOR_PERSON" ]; then own=$(systemctl --user show --property MainPID --value trainerd 2> /dev/null || true); fi
    others=
    for pid in $(supervisors); do
        if [ "$pid" = "$main" ] || [ "$pid" = "$own" ]; then continue; fi
        others=1
        say "the supervisor $pid of $(owner_of "$pid") runs from $target; end it, $(what_to_do "$pid" "disable --now")"
    done
    [ -z "$others" ] || fail "nothing was removed: end these first, then run this again"
fi

if is_managed && [ -n "$is_of_system" ]; then
    say "draining all jobs"
    systemctl disable --quiet --now trainerd
elif [ -n "$FOR_PERSON" ] && is_ours "$user_unit"; then
    say "draining all jobs"
    systemctl --user disable --quiet --now trainerd 2> /dev/null || true
fi
if [ -z "$staged" ] && [ -n "$(supervisors)" ]; then
    fail "a supervisor still runs from $target (process $(supervisors | tr '\n' ' ')): nothing was removed"
fi

rm -rf "$target" "$target.new"
if is_ours "$user_unit"; then rm -f "$user_unit"; fi
if [ -n "$is_of_system" ]; then
    rm -f "$system_unit" "$DESTDIR$LIBDIR/sysusers.d/trainerd.conf" "$DESTDIR$LIBDIR/tmpfiles.d/trainerd.conf"
fi
link=$DESTDIR$BINDIR/trainerd
if [ "$(readlink "$link" 2> /dev/null)" = "$PREFIX/bin/trainerd" ]; then rm -f "$link"; fi
manuals=$(dirname "$BINDIR")/share/man/man1
. "$source/systemd/manuals.sh"
remove_manuals "$target"
configuration=$DESTDIR$SYSCONFDIR/trainerd/trainerd.toml
if [ -n "$is_of_system" ]; then
    if cmp -s "$source/systemd/trainerd.toml" "$configuration"; then rm -f "$configuration"; fi
    rmdir "$DESTDIR$SYSCONFDIR/trainerd" 2> /dev/null || true
fi
for folder in "$LIBDIR/systemd/system" "$LIBDIR/systemd/user" "$LIBDIR/systemd" "$LIBDIR/sysusers.d" "$LIBDIR/tmpfiles.d" \
    "$manuals"; do
    rmdir "$DESTDIR$folder" 2> /dev/null || true
done

if is_managed; then
    systemctl daemon-reload
    systemctl reset-failed trainerd 2> /dev/null || true
elif [ -n "$FOR_PERSON" ]; then
    systemctl --user daemon-reload 2> /dev/null || true
fi

say "trainerd is removed from $target"
if [ -n "$FOR_PERSON" ]; then
    state=$HOME/.local/state/trainerd
    if [ -d "$state" ]; then
        say "kept $state, with all specs, runs and checkpoints; to be rid of these too:  rm -r $state"
    fi
    exit 0
fi
if [ -n "$is_of_system" ] && [ -e "$configuration" ]; then say "kept $configuration: it was changed"; fi
if [ -z "$DESTDIR" ] && [ -n "$is_of_system" ] && [ -d "$state" ]; then
    say "kept $state, with all specs, runs and checkpoints, and the user trainerd, to whom they belong"
    say "to be rid of these too:  rm -r $state; userdel trainerd"
fi
