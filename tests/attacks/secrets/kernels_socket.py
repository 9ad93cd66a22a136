# Looks for a control socket of the kernel and its state below every folder that it may list.
# severity: high
# escape: said, secret
# as: root
import os

from raw import A, attempt, tried

for place in (A.state, f"{A.state}/..", "/run", "/var/run", os.path.expanduser("~root"), "/home"):
    attempt(place, lambda place=place: os.listdir(place))
tried()
