# Runs programs in a pipeline, with an environment of its own, and sees their exit codes.
# stdout: '3\n7 b"err\\n"\nx=1\n'
import os
import subprocess
import sys

one = subprocess.Popen(["printf", "c\\na\\nb\\n"], stdout=subprocess.PIPE)
two = subprocess.run(["wc", "-l"], stdin=one.stdout, capture_output=True, text=True, check=True)
one.wait()
print(two.stdout.strip())
done = subprocess.run(
    [sys.executable, "-c", "import sys; print('err', file=sys.stderr); sys.exit(7)"], capture_output=True
)
print(done.returncode, repr(done.stderr).replace("'", '"'))
print(
    subprocess.run("echo x=$X", shell=True, capture_output=True, text=True, env={**os.environ, "X": "1"}).stdout.strip()
)
