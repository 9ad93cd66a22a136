# Floods the error stream.
# severity: medium
# escape: output
# stops: output
yes 'an error' | head -c 8000000 >&2
echo TRIED
