# Leaves files that are large and take no room: who reads them whole fills its memory.
# severity: high
# escape: artefact
# stops: files
import os

from raw import refusable, tried

with refusable("sparse"):
    for number in range(6):
        with open(f"f{number}", "wb") as file:
            file.truncate(20 << 20)
tried()
