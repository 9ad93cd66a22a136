# Computes for ever.
# severity: medium
# escape: wall
# timeout: 1
# stops: timeout
while True:
    pass
