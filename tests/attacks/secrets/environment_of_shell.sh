# Prints the environment that a shell has, and that of the program that started it.
# severity: critical
# escape: secret
env
set
export -p
echo TRIED
