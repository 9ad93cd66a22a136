# Reads what another tenant says by where its links lead.
# severity: low
# escape: secret
# neighbour: yes
# price: confined: their links read
import os

from raw import A, refusable, tried

with refusable("link"):
    print(os.readlink(f"{A.neighbour_tmp}/link-{A.marker}"))
tried()
