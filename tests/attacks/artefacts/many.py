# Leaves more files than anybody asked for.
# severity: medium
# escape: artefact
from raw import tried

for number in range(190):
    with open(f"f{number}", "w") as file:
        file.write("x")
tried()
