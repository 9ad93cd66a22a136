# Sets up io_uring, which does what other calls do, past the filter.
# severity: critical
# escape: said
import ctypes

from raw import attempt, call, tried

attempt("io_uring", lambda: call("io_uring_setup", 8, ctypes.create_string_buffer(120)))
tried()
