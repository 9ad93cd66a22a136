# Reads a table, groups it and writes a report.
# stdout: 'north 2 15.0\nsouth 1 7.5\n'
# files: report.json, sales.csv
import csv
import json
import statistics
from collections import defaultdict

with open("sales.csv", "w", newline="") as file:
    csv.writer(file).writerows([("region", "amount"), ("north", 10), ("north", 20), ("south", 7.5)])
groups = defaultdict(list)
with open("sales.csv", newline="") as file:
    for row in csv.DictReader(file):
        groups[row["region"]].append(float(row["amount"]))
with open("report.json", "w") as file:
    json.dump({name: statistics.mean(values) for name, values in groups.items()}, file, indent=2)
for name, values in groups.items():
    print(name, len(values), statistics.mean(values))
