"""A Sacred command for tests/rrt/command_line/test_sacred.py.

Its second paragraph.
"""

import sys
from copy import deepcopy

from rrt.command_line.sacred import Ingredient, make_experiment, run_sacred
from rrt.errors import InputError

dataset = Ingredient("dataset")
dataset.add_config({"name": "oxford", "size": 3})
dataset.add_named_config("paris", {"name": "paris"})

ex = make_experiment("example_command", [dataset])
ex.add_settings(
    {
        "rate": (0.5, "how often"),
        "double": (lambda given: 2 * given["rate"], ""),
        "params": ({"k": 2}, ""),
        "flag": (False, ""),
        "fail": (None, ""),
    }
)


@ex.main
def main(dataset, rate, params, flag, fail, _config):
    """Print the settings, or fail as told."""
    changed = deepcopy(_config)
    changed["params"]["k"] += 1
    print(dataset["name"], rate, params["k"], changed["params"]["k"], flag)
    print("to standard error", file=sys.stderr)
    if fail == "input":
        raise InputError("data/x.h5: no such file; make it")
    if fail == "file":
        open("absent/file").close()
    if fail == "interrupt":
        raise KeyboardInterrupt
    if fail == "bug":
        raise ZeroDivisionError("a bug")
    return {"rate": rate}


if __name__ == "__main__":
    run_sacred(ex)
