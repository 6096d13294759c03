#!/bin/sh
# `make install`: a virtual environment in PREFIX, and units where systemd looks. Run it again to upgrade.
# `make install-user`: the same for one person, without root, below their home folder (FOR_PERSON=1).
#
# The new program is checked before it takes the place of the old one, with the command line of each supervisor that
# runs from PREFIX. If the service refuses it all the same, the old program and its units are put back.
# The environment is made beside its place and exchanged for the old one in one step, so that a running supervisor
# finds all of the old or all of the new. Paths inside it are rewritten, for this and for DESTDIR.
set -eu
umask 022

: "${PYTHON:?}" "${PREFIX:=/opt/trainerd}" "${DESTDIR:=}" "${PIP_FLAGS:=}"
: "${BINDIR:=/usr/local/bin}" "${LIBDIR:=/usr/local/lib}" "${SYSCONFDIR:=/etc}" "${FOR_PERSON:=}"
is_here() { [ -z "$staged" ] && [ -z "$FOR_PERSON" ] && [ "$(id -u)" = 0 ]; }
staged=$DESTDIR
source=$(cd "$(dirname "$0")/.." && pwd)
marker=.installed-by-trainerd
user=trainerd

say() { echo "install: $*"; }
fail() { echo "install: $*" >&2; exit 1; }
. "$source/systemd/supervisors.sh"

for path in "$PREFIX" "$BINDIR" "$LIBDIR" "$SYSCONFDIR" "${DESTDIR:-/}"; do
    case $path in
    *[!A-Za-z0-9/._+-]*) fail "$path: only letters, digits and / . _ + - may be in a path here" ;;
    /*) ;;
    *) fail "$path is not an absolute path" ;;
    esac
done
DESTDIR=${DESTDIR%/}
target=$DESTDIR$PREFIX
if [ -n "$FOR_PERSON" ]; then
    [ "$(id -u)" != 0 ] || fail "install-user is for one person, without root; for the whole machine: make install"
    [ -z "$staged" ] || fail "install-user has no DESTDIR; for a package: make install DESTDIR=$staged"
elif [ -z "$staged" ] && [ ! -d /run/systemd/system ]; then
    fail "systemd does not run here. For a package or an image: make install DESTDIR=/where;" \
        "for an environment to work in: make venv"
fi
if [ -e "$target" ] && [ ! -e "$target/$marker" ]; then
    fail "$target exists and is not of trainerd's making: move it away, or choose another PREFIX"
fi
mkdir -p "$(dirname "$target")" 2>/dev/null && [ -w "$(dirname "$target")" ] ||
    fail "cannot write to $(dirname "$target"): run it as root, or choose another PREFIX or DESTDIR"

new=$target.new
build=$(mktemp -d)
trap 'rm -rf "$build" "$new"' EXIT
trap 'exit 1' HUP INT TERM
rm -rf "$new"

# Built from a copy: nothing that belongs to root is left in the source.
cp -R "$source/pyproject.toml" "$source/README.md" "$source/LICENSE" "$source/daemon" "$build/"
"$PYTHON" -m venv "$new"
# shellcheck disable=SC2086 # several flags are meant to be several words
env -u DESTDIR -u PREFIX "$new/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile --no-warn-script-location \
    $PIP_FLAGS -c "$source/constraints.txt" "${build}[daemon]"
for file in "$new/pyvenv.cfg" "$new"/bin/*; do
    if [ -f "$file" ] && [ ! -L "$file" ]; then sed -i "s#$new#$PREFIX#g" "$file"; fi
done
"$new/bin/python" -m compileall -q -j 0 -s "$new" -p "$PREFIX" "$new/lib"
mkdir -p "$new/share/doc/trainerd"
cp "$source"/docs/*.md "$new/share/doc/trainerd/"
cp "$source/systemd/README.md" "$new/share/doc/trainerd/systemd.md"
"$new/bin/python" -m trainerd.cli.man_pages "$new/share/man/man1"
"$new/bin/python" -c 'import trainerd.version; print(trainerd.version.VERSION)' > "$new/$marker"

# Nothing that is installed has been touched so far.
mkdir "$build/jobs" "$build/state"
said=$("$new/bin/python" -m trainerd run --jobs "$build/jobs" --state "$build/state" --check 2>&1) ||
    fail "the new program cannot start, nothing was changed: $said"
running=
main=0
if [ -z "$staged" ]; then
    running=$(supervisors)
    [ -n "$FOR_PERSON" ] || main=$(main_pid)
fi
for pid in $running; do
    said=$(check "$pid" "$new/bin/python") && continue
    if [ "$pid" = "$main" ] || [ -n "$FOR_PERSON" ]; then
        fail "the new program cannot take the place of the running one, nothing was changed: $said"
    fi
    say "the supervisor $pid of $(owner_of "$pid") cannot be renewed: $said"
done

install -d "$DESTDIR$LIBDIR/systemd/user" "$DESTDIR$BINDIR"
if [ -z "$FOR_PERSON" ]; then
    install -d "$DESTDIR$LIBDIR/systemd/system" "$DESTDIR$LIBDIR/sysusers.d" "$DESTDIR$LIBDIR/tmpfiles.d" \
        "$DESTDIR$SYSCONFDIR/trainerd"
    install -m 644 "$source/systemd/sysusers.d/trainerd.conf" "$DESTDIR$LIBDIR/sysusers.d/trainerd.conf"
    install -m 644 "$source/systemd/tmpfiles.d/trainerd.conf" "$DESTDIR$LIBDIR/tmpfiles.d/trainerd.conf"
fi
if is_here && command -v systemd-sysusers > /dev/null; then
    systemd-sysusers "$LIBDIR/sysusers.d/trainerd.conf"
    systemd-tmpfiles --create "$LIBDIR/tmpfiles.d/trainerd.conf"
    setpriv --reuid="$user" --regid="$user" --clear-groups "$new/bin/python" -c 'import trainerd.cli.main' ||
        fail "the user $user cannot run $PYTHON: choose one outside of home folders: make install PYTHON=/usr/bin/python3"
fi

# One step, where the kernel and the filesystem know it; else two, between which there is nothing for a moment.
exchange='
import ctypes, sys
at_here, exchange = -100, 2
libc = ctypes.CDLL(None, use_errno=True)
sys.exit(libc.renameat2(at_here, sys.argv[1].encode(), at_here, sys.argv[2].encode(), exchange) != 0)'
swap() {
    "$PYTHON" -c "$exchange" "$new" "$target" 2> /dev/null || {
        mv "$target" "$target.old"
        mv "$new" "$target"
        mv "$target.old" "$new"
    }
}
if [ ! -e "$target" ]; then
    mv "$new" "$target"
else
    swap # now the old one is in $new
fi

kinds="system user"
[ -z "$FOR_PERSON" ] || kinds=user
for kind in $kinds; do
    unit=$DESTDIR$LIBDIR/systemd/$kind/trainerd.service
    if [ -e "$unit" ]; then cp -p "$unit" "$build/old-$kind"; fi
    sed -e "s#/opt/trainerd#$PREFIX#g" -e "s#/etc/trainerd#$SYSCONFDIR/trainerd#g" "$source/systemd/$kind/trainerd.service" \
        > "$build/unit"
    install -m 644 "$build/unit" "$unit"
done
configuration=$DESTDIR$SYSCONFDIR/trainerd/trainerd.toml
if [ -n "$FOR_PERSON" ]; then
    :
elif [ ! -e "$configuration" ]; then
    install -m 644 "$source/systemd/trainerd.toml" "$configuration"
elif ! cmp -s "$source/systemd/trainerd.toml" "$configuration"; then
    say "kept $configuration; the one that comes with this version is $source/systemd/trainerd.toml"
fi
link=$DESTDIR$BINDIR/trainerd
if [ ! -e "$link" ] || [ "$(readlink "$link")" = "$PREFIX/bin/trainerd" ]; then
    ln -sfn "$PREFIX/bin/trainerd" "$link"
else
    say "left $link alone: it is not of trainerd's making"
fi

manuals=$(dirname "$BINDIR")/share/man/man1 # where man looks for a program in BINDIR
. "$source/systemd/manuals.sh"
link_manuals "$target"
remove_manuals "$target"

reload_units() {
    if is_here; then
        systemctl daemon-reload
    elif [ -n "$FOR_PERSON" ]; then
        systemctl --user daemon-reload 2> /dev/null || true
    fi
}

put_back() {
    swap
    for kind in $kinds; do
        if [ -e "$build/old-$kind" ]; then cp -p "$build/old-$kind" "$LIBDIR/systemd/$kind/trainerd.service"; fi
    done
    reload_units
}

# It would else find new code, piece by piece, where its own was.
renew() {
    as_owner "$1" "$PREFIX/bin/trainerd" reload --state "$(state_of "$1")" 2>&1 > /dev/null
}

reload_units
for pid in $running; do
    [ "$pid" = "$main" ] || [ -n "$FOR_PERSON" ] || continue
    if ! said=$(renew "$pid"); then
        put_back
        fail "the running supervisor was not renewed, and the old program is in $target again: $said"
    fi
    say "the running supervisor has been renewed in place; no job was disturbed"
done
for pid in $running; do
    [ "$pid" != "$main" ] && [ -z "$FOR_PERSON" ] || continue
    if said=$(renew "$pid"); then
        say "the supervisor $pid of $(owner_of "$pid") has been renewed in place as well"
    else
        say "the supervisor $pid of $(owner_of "$pid") still runs the old program: $said"
        say "renew it, $(what_to_do "$pid" reload)"
    fi
done

say "trainerd $(cat "$target/$marker") is in $target"
if [ -n "$FOR_PERSON" ] && [ -z "$running" ]; then
    state=$HOME/.local/state/trainerd
    say "start it with your next login and now:  systemctl --user enable --now trainerd"
    say "and keep it when you log out:  loginctl enable-linger"
    say "without systemd:  $BINDIR/trainerd run --jobs $state/jobs --state $state"
elif is_here && [ "$main" = 0 ]; then
    say "start it now and at every boot:  systemctl enable --now trainerd"
fi
