# Calls the C library.
# stdout: '5 b"42"\n'
import ctypes

libc = ctypes.CDLL(None)
room = ctypes.create_string_buffer(16)
libc.snprintf(room, 16, b"%d", 42)
print(libc.strlen(b"hello"), repr(room.value).replace("'", '"'))
