"""A program with blocking calls: convert a table in a step, then check its file every hour until that passes."""

import csv
import os

CHECK = "import csv; print(sum(float(row['x']) for row in csv.DictReader(open('day.csv'))))"


def convert(day, table):
    with open(f"{day}.csv", "w", newline="") as file:
        csv.writer(file).writerows(table)
    return os.path.getsize(f"{day}.csv")


def main(input):
    day = input["day"]
    size = kernel.step("convert", convert, day, input["table"], retry={"attempts": 4, "delay_s": 1}, timeout_s=120)
    with open(f"{day}.csv", newline="") as file:  # the step's file is here, after a restart too
        text = file.read()
    for hour in range(24):
        checked = kernel.sandbox.run(CHECK, files={"day.csv": text})
        if checked.exit_code == 0:
            break
        kernel.log(checked.stderr)
        kernel.sleep(3600)
    else:
        raise RuntimeError("the check did not pass in a day")
    return {"bytes": size, "sum": float(checked.stdout)}
