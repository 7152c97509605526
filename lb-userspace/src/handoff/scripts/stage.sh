# The release appears whole or not at all. Where it is there already its files are the same; each is put right in one step.
rm -rf "$release.new"
mkdir "$release.new"
tar -xf - -C "$release.new"
if [ -d "$release" ]; then
    mv -f "$release.new"/* "$release/"
    rmdir "$release.new"
else
    mv -T "$release.new" "$release"
fi
