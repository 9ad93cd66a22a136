# Reaches the calls of administrators, with arguments that do nothing: reboot, swap, clock, quota, accounting, host name.
# severity: critical
# escape: said
# as: root
from raw import reaches, tried

reaches("reboot", 0, 0, 0, 0)
reaches("swapon", b"/there/is/no/such/file", 0)
reaches("settimeofday", 0, 0)
reaches("acct", b"/there/is/no/such/file")
reaches("sethostname", b"x" * 65, 65)
reaches("quotactl", 0x80000700, b"/there/is/no/such/file", 0, 0)
reaches("syslog", 10, 0, 0)
reaches("iopl", 4)
tried()
