# Mounts over a folder of the host, by the old call and the new ones.
# severity: critical
# escape: mount, said
# as: root
from raw import A, attempt, call, tried

attempt("mount", lambda: call("mount", b"none", A.mounts.encode(), b"tmpfs", 0, 0))
attempt("fsopen", lambda: call("fsopen", b"tmpfs", 0))
attempt("open_tree", lambda: call("open_tree", -100, A.around.encode(), 1))
tried()
