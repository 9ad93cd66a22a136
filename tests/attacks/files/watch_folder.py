# Watches a folder of the host: who opens what there, and when.
# severity: medium
# escape: said
import os

from raw import A, escaped, libc, tried

if libc.inotify_add_watch(libc.inotify_init(), os.fsencode(A.around), 0xFFF) >= 0:
    escaped("a watch on a folder of the host")
tried()
