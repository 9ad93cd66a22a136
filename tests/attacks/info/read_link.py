# Reads where a link of the host leads, which needs no opening.
# severity: low
# escape: secret
# price: confined: their links read
import os

from raw import A, refusable, tried

with refusable("link"):
    print(os.readlink(A.link))
tried()
