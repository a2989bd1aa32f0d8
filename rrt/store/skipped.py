"""The images that were left out of a store, `<store>.skipped.csv` beside it: name and reason."""

import csv
from pathlib import Path

from rrt.errors import InputError
from rrt.files.atomic import write_csv
from rrt.store.records import Skipped


def skipped_path(store_path):
    """`<store>.skipped.csv`, the list of images left out with their reasons."""
    return store_path.with_name(store_path.name + ".skipped.csv")


def read_skipped(store_path):
    """The images that were left out of a store: list of Skipped, empty when there is no `<store>.skipped.csv`."""
    path = Path(store_path)
    # The stores of a folder may have such lists of their own.
    return [
        skipped for each in [skipped_path(path), *sorted(path.glob("*.skipped.csv"))] for skipped in _read_list(each)
    ]


def _read_list(path):
    if not path.exists():
        return []
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            return [Skipped(row["name"], row["reason"]) for row in csv.DictReader(file)]
    except (ValueError, KeyError, csv.Error):
        raise InputError(f"{path}: damaged; delete it, or make the store again") from None


def write_skipped(store_path, skipped):
    """Write the list of Skipped whole or not at all; an empty one leaves no file."""
    path = skipped_path(store_path)
    if not skipped:
        path.unlink(missing_ok=True)
        return
    write_csv(path, [("name", "reason"), *((entry.name, entry.reason) for entry in skipped)])
