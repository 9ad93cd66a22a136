# One line of a megabyte through a pipe.
# stdout: '1000000\n'
head -c 1000000 /dev/zero | tr '\0' x | wc -c
