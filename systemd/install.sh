#!/bin/sh
# `make install`: a virtual environment in PREFIX, and units where systemd looks. Run it again to upgrade.
#
# The environment is made beside its place and exchanged for the old one in one step, so that a running supervisor
# finds all of the old or all of the new. Paths inside it are rewritten, for this and for DESTDIR.
set -eu
umask 022

: "${PYTHON:?}" "${PREFIX:=/opt/trainerd}" "${DESTDIR:=}" "${PIP_FLAGS:=}"
: "${BINDIR:=/usr/local/bin}" "${LIBDIR:=/usr/local/lib}" "${SYSCONFDIR:=/etc}"
is_here() { [ -z "$staged" ] && [ "$(id -u)" = 0 ]; }
staged=$DESTDIR
source=$(cd "$(dirname "$0")/.." && pwd)
marker=.installed-by-trainerd
user=trainerd

say() { echo "install: $*"; }
fail() { echo "install: $*" >&2; exit 1; }

for path in "$PREFIX" "$BINDIR" "$LIBDIR" "$SYSCONFDIR" "${DESTDIR:-/}"; do
    case $path in
    *[!A-Za-z0-9/._+-]*) fail "$path: only letters, digits and / . _ + - may be in a path here" ;;
    /*) ;;
    *) fail "$path is not an absolute path" ;;
    esac
done
DESTDIR=${DESTDIR%/}
target=$DESTDIR$PREFIX
if [ -z "$staged" ] && [ ! -d /run/systemd/system ]; then
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
cp "$source"/docs/*.md "$source/systemd/README.md" "$new/share/doc/trainerd/"
"$new/bin/python" -c 'import trainerd.version; print(trainerd.version.VERSION)' > "$new/$marker"

install -d "$DESTDIR$LIBDIR/systemd/system" "$DESTDIR$LIBDIR/systemd/user" "$DESTDIR$LIBDIR/sysusers.d" \
    "$DESTDIR$LIBDIR/tmpfiles.d" "$DESTDIR$BINDIR" "$DESTDIR$SYSCONFDIR/trainerd"
install -m 644 "$source/systemd/sysusers.d/trainerd.conf" "$DESTDIR$LIBDIR/sysusers.d/trainerd.conf"
install -m 644 "$source/systemd/tmpfiles.d/trainerd.conf" "$DESTDIR$LIBDIR/tmpfiles.d/trainerd.conf"
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
if [ ! -e "$target" ]; then
    mv "$new" "$target"
elif ! "$PYTHON" -c "$exchange" "$new" "$target" 2> /dev/null; then
    mv "$target" "$build/old"
    mv "$new" "$target"
fi

for kind in system user; do
    sed -e "s#/opt/trainerd#$PREFIX#g" -e "s#/etc/trainerd#$SYSCONFDIR/trainerd#g" "$source/systemd/$kind/trainerd.service" \
        > "$build/unit"
    install -m 644 "$build/unit" "$DESTDIR$LIBDIR/systemd/$kind/trainerd.service"
done
configuration=$DESTDIR$SYSCONFDIR/trainerd/trainerd.toml
if [ ! -e "$configuration" ]; then
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

say "trainerd $(cat "$target/$marker") is in $target"
if is_here; then
    systemctl daemon-reload
    if systemctl --quiet is-active trainerd; then
        # It would else find new code, piece by piece, where its own was.
        systemctl reload trainerd
        say "the running supervisor has been renewed in place; no job was disturbed"
    else
        say "start it now and at every boot:  systemctl enable --now trainerd"
    fi
fi
