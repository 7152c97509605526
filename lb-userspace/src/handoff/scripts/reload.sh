run_nginx -t -q
run_nginx -s reload || { echo "nginx cannot be told to reload: is it running?" >&2; exit 1; }
