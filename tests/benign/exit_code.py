# Ends with a code of its own.
# stdout: 'leaving\n'
# exit: 7
import sys

print("leaving")
sys.exit(7)
