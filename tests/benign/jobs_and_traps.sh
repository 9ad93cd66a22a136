# Background jobs, wait, traps, exit status.
# stdout: 'child 3\ncaught\nleaving\n'
# exit: 4
trap 'echo leaving' EXIT
(exit 3) &
wait $!
echo "child $?"
trap 'echo caught' TERM
kill -TERM $$
exit 4
