# Sourced by install.sh and uninstall.sh: the links to manual pages, in $manuals below $DESTDIR.

# link_manuals FROM: makes a link into PREFIX for each page in FROM/share/man/man1. A page that is there already and is no
# such link stays.
link_manuals() {
    mkdir -p "$DESTDIR$manuals"
    for page in "$1"/share/man/man1/*.1; do
        link=$DESTDIR$manuals/$(basename "$page")
        own=$PREFIX/share/man/man1/$(basename "$page")
        if [ "$(readlink "$link" 2> /dev/null)" = "$own" ] || [ ! -e "$link" ]; then ln -sfn "$own" "$link"; fi
    done
}

# remove_manuals KEPT: removes the links into PREFIX of which there is no page in KEPT/share/man/man1.
remove_manuals() {
    for link in "$DESTDIR$manuals"/trainerd*.1; do
        if [ "$(readlink "$link" 2> /dev/null)" = "$PREFIX/share/man/man1/$(basename "$link")" ] &&
            [ ! -e "$1/share/man/man1/$(basename "$link")" ]; then
            rm -f "$link"
        fi
    done
}
