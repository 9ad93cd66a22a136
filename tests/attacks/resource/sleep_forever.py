# Sleeps for ever and ignores whoever wakes it.
# severity: low
# escape: wall
# timeout: 1
# stops: timeout
import signal

signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
signal.sigwait([signal.SIGUSR1])
