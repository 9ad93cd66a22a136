# Reads what it is given.
# stdin: 'one\ntwo\n'
# argv: --name Anna -n 2
# stdout: "['one', 'two'] Anna 2\n"
import argparse
import sys

parser = argparse.ArgumentParser()
parser.add_argument("--name")
parser.add_argument("-n", type=int)
found = parser.parse_args()
print([line.strip() for line in sys.stdin], found.name, found.n)
