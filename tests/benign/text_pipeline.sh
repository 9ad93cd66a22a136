# Sorts, counts and cuts text.
# stdout: 'a 2\nb 1\n3\n'
printf 'b\na\na\n' | sort | uniq -c | awk '{print $2, $1}'
seq 10 | grep -c '[135]$' | tr -d ' ' | sed 's/^/ /' | tr -d ' '
