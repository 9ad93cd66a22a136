"""Summarise a CSV table column by column, as one JSON object. Usage: summarise.py [FILE]; without one, from the input or stdin."""  # noqa: INP001  (a script, not a package)

import csv
import io
import json
import sys
from collections import Counter
from pathlib import Path
from statistics import fmean

MISSING = {"", "NA"}


def main() -> None:
    rows = list(csv.DictReader(io.StringIO(table())))
    if not rows:
        sys.exit("summarise.py: the table has no rows")
    print(json.dumps({"rows": len(rows), "columns": [column(name, [row[name] for row in rows]) for name in rows[0]]}))


def table() -> str:
    if len(sys.argv) > 1:
        return Path(sys.argv[1]).read_text(encoding="utf8")
    text = sys.stdin.read()
    try:
        return json.loads(text)["csv"]
    except (ValueError, TypeError, KeyError):
        return text  # no JSON object with a csv in it, so it is the table itself


def column(name: str, fields: list[str]) -> dict:
    present = [field for field in fields if field not in MISSING]
    facts = {"name": name, "count": len(present), "missing": len(fields) - len(present)}
    try:
        numbers = [float(field) for field in present]
    except ValueError:
        numbers = []
    if numbers:
        return {**facts, "least": min(numbers), "mean": round(fmean(numbers), 3), "greatest": max(numbers)}
    frequent = Counter(present).most_common(3)
    return {**facts, "distinct": len(set(present)), "most_frequent": [[word, count] for word, count in frequent]}


main()
