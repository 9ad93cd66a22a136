# Connects by the shell's own /dev/tcp and /dev/udp.
# severity: critical
# escape: heard
declare "$@"
echo hello > "/dev/tcp/127.0.0.1/$tcp"
echo hello > "/dev/udp/127.0.0.1/$udp"
echo TRIED
