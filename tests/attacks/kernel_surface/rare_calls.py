# Reaches calls that ordinary programs never make.
# severity: medium
# escape: said
from raw import reaches, tried

reaches("vmsplice", 0, 0, 0, 0)
reaches("modify_ldt", 0, 0, 0)
reaches("fanotify_init", 0x200, 0)
reaches("process_madvise", -1, 0, 0, 4, 0)
reaches("name_to_handle_at", -100, b".", 0, 0, 0)
reaches(206, 1, 0)
reaches(216, 0, 0, 0, 0, 0)
reaches(237, 0, 0, 0, 0, 0, 0)
reaches(256, 0, 0, 0, 0)
reaches(162)
tried()
