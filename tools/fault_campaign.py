"""`python tools/fault_campaign.py --help`; what it does is in tests/helpers/faults.py."""

import sys

if __name__ == "__main__":
    sys.path[:0] = [".", "tests/helpers"]
    from faults import campaign  # pyright: ignore[reportMissingImports]

    sys.exit(campaign())
