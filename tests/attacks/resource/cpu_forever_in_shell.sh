# Computes for ever in a shell that ignores every signal it may.
# severity: medium
# escape: wall
# timeout: 1
# stops: timeout
trap '' TERM INT HUP XCPU ALRM QUIT USR1 USR2 PIPE
while :; do :; done
