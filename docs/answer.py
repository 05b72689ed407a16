"""Answers a table that flowerray asks people to fill in, from the truth of a drawn sample set.

python docs/answer.py TABLE flowers/truth.csv
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path


def main(table: str, truth: str) -> None:
    with open(truth, newline="", encoding="utf-8") as file:
        known = {row["file"]: row["label"] for row in csv.DictReader(file)}
    with open(table, newline="", encoding="utf-8") as file:
        asked = list(csv.DictReader(file))
    for row in asked:
        row["label"] = known[Path(row["uri"]).name]
    with open(table, "w", newline="", encoding="utf-8") as file:
        answered = csv.DictWriter(file, asked[0])
        answered.writeheader()
        answered.writerows(asked)
    print(f"{table}: {len(asked)} answers")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
