# Leaves daemons behind by what a shell offers: nohup, setsid, disown, coproc.
# severity: critical
# escape: survivor
declare "$@"
nohup bash -c "exec -a $marker sleep 60" >/dev/null 2>&1 &
setsid bash -c "exec -a $marker sleep 60" >/dev/null 2>&1 </dev/null &
(trap '' HUP TERM; exec -a "$marker" sleep 60) >/dev/null 2>&1 & disown
echo TRIED
