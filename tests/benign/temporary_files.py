# Named, nameless and spooled temporary files, folders that go away.
# stdout: 'spooled 5 False True\n'
import os
import tempfile

with tempfile.TemporaryFile() as one, tempfile.NamedTemporaryFile("w", suffix=".txt") as two:
    one.write(b"hello")
    two.write("hello")
    size = one.tell()
with tempfile.TemporaryDirectory() as folder:
    open(os.path.join(folder, "a"), "w").close()
with tempfile.SpooledTemporaryFile(max_size=3) as three:
    three.write(b"spooled")
    three.seek(0)
    print(three.read().decode(), size, os.path.exists(folder), tempfile.gettempdir().startswith("/"))
