"""Where the files lie that come with the package: models, and what was learned beside them."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
# A clone keeps them beside the package, a wheel inside it.
_FOLDERS = (_PACKAGE.parent / "rrt_gld_ckpts", _PACKAGE / "shipped")


def shipped(name: str) -> Path:
    """The path of a file of the package; where none of this name came with it, the path that it would have."""
    paths = [folder / name for folder in _FOLDERS]
    return next((path for path in paths if path.is_file()), paths[-1])
