# Asks the kernel about its mounts by calls that are younger than most filters.
# severity: medium
# escape: said
from raw import reaches, tried

reaches("statmount", 0, 0, 0, 0)
reaches("listmount", 0, 0, 0, 0)
reaches("lsm_list_modules", 0, 0, 0)
reaches("setxattrat", -1, 0, 0, 0, 0, 0)
reaches("file_setattr", -1, 0, 0, 0, 0)
reaches("memfd_secret", 0)
tried()
