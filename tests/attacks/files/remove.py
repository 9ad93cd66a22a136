# Removes and renames files of the host.
# severity: critical
# escape: changed
# as: root
import os

from raw import A, refusable, tried

with refusable("rename"):
    os.rename(A.open_file, f"{A.around}/renamed.txt")
    os.rename(f"{A.around}/renamed.txt", A.open_file)
with refusable("steal by rename"):
    os.rename(A.open_file, "stolen")
    os.rename("stolen", A.open_file)
with refusable("link away"):
    os.link(A.open_file, f"{A.open_dir}/second")
tried()
