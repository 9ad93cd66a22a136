# Leaves files whose names move the cursor, hide, reverse or are no text.
# severity: medium
# escape: terminal
from raw import refusable, tried

for name in (
    b"a\x1b[2J.txt",
    b"b\nc.txt",
    "r\u202etxt.exe".encode(),
    b"\xff\xfe.txt",
    b"-rf",
    b"d\x07",
    "e\U000e0041\u200b".encode(),
    b"..\\f",
    b" ",
):
    with refusable("name"), open(name, "w") as file:
        file.write("x")
tried()
