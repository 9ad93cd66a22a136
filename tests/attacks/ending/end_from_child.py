# Lets a child say that it has ended, and goes on itself.
# severity: high
# escape: survivor
from raw import end, fork, stay, tried

tried()
fork(lambda: end(exit_code=0, value="from a child"))
stay(60)
