set -eu
umask 077
run_nginx() { eval "$LB_NGINX \"\$@\""; }
# point NAME TARGET: makes the link NAME lead to TARGET in one step.
point() { rm -f "$1.new"; ln -s "$2" "$1.new"; mv -fT "$1.new" "$1"; }
mkdir -p "$LB_DIRECTORY/releases"
cd "$LB_DIRECTORY"
release="releases/$LB_RELEASE"
