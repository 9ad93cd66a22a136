# Asks who and where it is, as libraries do at their import.
# stdout: 'True True True True\n'
import getpass
import os
import platform
import sys
import sysconfig

print(
    os.getuid() != 0,
    bool(platform.platform()),
    os.cpu_count() >= 1,
    bool(sysconfig.get_paths()) and sys.platform == "linux",
)
