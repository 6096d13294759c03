# Sourced by install.sh and uninstall.sh: the links to manual pages, in $manuals below $DESTDIR.

# remove_manuals KEPT: removes the links into PREFIX of which there is no page in KEPT/share/man/man1.
remove_manuals() {
    for link in "$DESTDIR$manuals"/trainerd*.1; do
        if [ "$(readlink "$link" 2> /dev/null)" = "$PREFIX/share/man/man1/$(basename "$link")" ] &&
            [ ! -e "$1/share/man/man1/$(basename "$link")" ]; then
            rm -f "$link"
        fi
    done
}
