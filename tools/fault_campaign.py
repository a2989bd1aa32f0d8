"""`python tools/fault_campaign.py --help`; what it does is in tests/helpers/faults.py."""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1] / folder) for folder in ("", "tests/helpers")]
    from faults import campaign  # pyright: ignore[reportMissingImports]

    sys.exit(campaign())
