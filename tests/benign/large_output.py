# Prints a megabyte and ends well.
# stdout: None
# value: "'done'"
for n in range(10_000):
    print(f"{n:>99}")
"done"
