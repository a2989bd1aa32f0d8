"""Any function of Python as a describer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from rrt.errors import InputError
from rrt.extraction.describer import Describer
from rrt.extraction.extract import Plan, extract
from rrt.extraction.levels import Level, LevelDescriber, changed_settings, gem, level_of
from rrt.extraction.projections import load_projections
from rrt.extraction.settings import DescriberSettings
from rrt.formats.image_jobs import collect_jobs
from rrt.store.records import Skipped


class CallableDescriber(LevelDescriber):
    """A describer from a function of an image, uint8 RGB [H, W, 3].

    The function returns a map [h, w, D] of local descriptors of any length, or (map, global [Dg]), or (map, global,
    attention [h, w]). Without a global descriptor it is the GeM of the map (p = 3), without attention the length of
    the local ones. name: stands in the store for the function; a store that is continued refuses another name, so put
    a version into it. projection: a file of tools/learn_projection.py. settings: fields of DescriberSettings, among
    them `multiple`, the pixels of a cell. Raises InputError for results of other shapes.
    """

    def __init__(self, function: Callable, name: str, projection=None, sha256: str = "", **settings):
        if not callable(function):
            raise InputError(f"callable {name}: {function!r} is no function of an image")
        self._function, self._name = function, name
        base = DescriberSettings(scales=(1.0,))
        learned = load_projections(projection) if projection else None
        self._settle(changed_settings(base, settings), sha256, learned, model=f"callable:{name}")

    def level(self, pixels: np.ndarray) -> Level:
        """See LevelDescriber.level."""
        result = self._function(pixels)
        cells, *more = (np.asarray(part) for part in (result if isinstance(result, tuple) else (result,)))
        global_ = more[0] if more else None
        attention = more[1] if len(more) == 2 else None
        if (
            cells.ndim != 3
            or len(more) > 2
            or (global_ is not None and global_.ndim != 1)
            or (attention is not None and attention.shape != cells.shape[:2])
        ):
            shapes = ", ".join(str(part.shape) for part in (cells, *more))
            raise InputError(
                f"callable {self._name}: it returned arrays of shapes {shapes} for an image of {pixels.shape[:2]}"
                " pixels; return a map [h, w, D], and besides a global descriptor [Dg] and attention [h, w] if you like"
            )
        if not all(np.isfinite(part).all() for part in (cells, *more)):
            raise InputError(f"callable {self._name}: it returned values that are not finite; mend the function")
        return level_of(gem(cells) if global_ is None else global_, cells, attention)


def extract_lists(
    describer: Describer,
    image_dir: str | Path,
    lists: str | Path | Sequence[str | Path],
    output: str | Path,
    query_lists: str | Path | Sequence[str | Path] = (),
    ground_truth: str | None = None,
) -> list[Skipped]:
    """The images of lists (their paths, or one) into a store, in this process; what is there already of a run that was
    killed is kept. Queries are cropped to their boxes in the ground truth -> images left out. Raises InputError."""
    jobs = collect_jobs(_paths(lists), _paths(query_lists), ground_truth, str(image_dir))
    plan = Plan(lambda threads: describer, tuple(jobs), str(output), describer.identity)
    return extract(plan, describer.sha256, Path(output).stem.removeprefix("delg_"), num_workers=1)


def _paths(lists: str | Path | Sequence[str | Path]) -> list[str]:
    return [str(each) for each in ([lists] if isinstance(lists, str | Path) else lists)]
