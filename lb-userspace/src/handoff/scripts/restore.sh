# Where the release is not the current one, the swap did not get that far and there is nothing to take back.
if [ "$(readlink current || :)" = "$release" ]; then
    previous=$(readlink previous || :)
    if [ -n "$previous" ]; then point current "$previous"; else rm -f current; fi
fi
