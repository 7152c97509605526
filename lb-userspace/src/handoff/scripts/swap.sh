[ -d "$release" ] || { echo "$LB_DIRECTORY/$release is missing: it was not staged, or was removed since" >&2; exit 1; }
current=$(readlink current || :)
if [ "$current" != "$release" ]; then
    if [ -n "$current" ]; then point previous "$current"; else rm -f previous; fi
    point current "$release"
fi
previous=$(readlink previous || :)
for old in releases/*; do
    case $old in "$release" | "$previous") ;; *) rm -rf "$old" ;; esac
done
