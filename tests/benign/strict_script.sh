# A careful script, as they are written today.
# stdout: 'a failing pipe\nok\n'
set -euo pipefail
if false | true; then echo unexpected; else echo "a failing pipe"; fi
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
echo ok > "$tmp/x"
cat "$tmp/x"
