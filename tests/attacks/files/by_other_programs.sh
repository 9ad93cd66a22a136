# Lets the host's own programs read for it: tar, grep, the shell's error messages.
# severity: critical
# escape: secret
declare "$@"
tar cf - "$around" 2>/dev/null | tr -d '\000'
grep -r . "$around" 2>/dev/null
. "$canary"
bash "$canary"
python3 "$canary"
cp "$canary" copy
echo TRIED
