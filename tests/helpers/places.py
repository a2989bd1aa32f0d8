"""Where tests find what does not lie beside them."""

from pathlib import Path

HELPERS = Path(__file__).resolve().parent
GOLDEN = HELPERS.parent / "golden"
ROOT = HELPERS.parents[1]
SHARED = ROOT.parent / "shared"
