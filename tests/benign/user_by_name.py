# Looks its own user up.
# stdout: 'guest /workspace localhost\n'
# price: confined: other paths can still be *stat*-ed
import os
import pwd
import socket

me = pwd.getpwuid(os.getuid())
print(me.pw_name, me.pw_dir, "localhost" if socket.gethostbyname("localhost") == "127.0.0.1" else "")
