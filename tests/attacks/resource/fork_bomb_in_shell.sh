# Makes background jobs as fast as a shell can.
# severity: high
# escape: tasks
# stops: processes
for i in $(seq 150); do sleep 15 & done
sleep 12
echo TRIED
