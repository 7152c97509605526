run_nginx -t -q -c "$LB_DIRECTORY/$release/test.conf"
