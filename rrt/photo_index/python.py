"""Search in a folder of photographs in Python:

index = rrt.PhotoIndex.build("photographs")
[hit.name for hit in index.search("tower.jpg")]
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from rrt.errors import InputError, check_count
from rrt.extraction.images import Picture, pixels_of
from rrt.files.names import shown
from rrt.photo_index import query as opened
from rrt.photo_index.duplicates import Group, find_groups
from rrt.photo_index.extraction import Describer, open_describer
from rrt.photo_index.query import Hits
from rrt.photo_index.ranking import Ranker, make_ranker
from rrt.photo_index.second_look import LOOKED_AT, look_again
from rrt.photo_index.update import BuildSettings, update
from rrt.store.records import ImageRecord


class PhotoIndex(opened.PhotoIndex):
    """An index of a folder of photographs, as `rrt search` makes it; opened by the name of its folder.

    ``len`` is the number of its photographs, ``entries`` are they. Raises InputError where there is no index.
    """

    @classmethod
    def build(cls, photos: str | Path, index: str | Path | None = None, **settings) -> PhotoIndex:
        """Make an index of a folder, or bring it up to date, and open it. index: its folder, None = `PHOTOS.index`
        beside the photographs; settings: of ``rrt.photo_index.update.BuildSettings``. Raises InputError."""
        folder = Path(f"{Path(photos).absolute()}.index" if index is None else index)
        update(folder, str(photos), BuildSettings(**settings))
        return cls(folder)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def close(self) -> None:
        """Let go of the model that describes queries; a later search loads it again."""
        describer = vars(self).pop("_describer", None)
        if describer:
            describer.close()

    @cached_property
    def _describer(self) -> Describer:
        return open_describer(self.folder, self.manifest.extraction)

    def __len__(self):
        return len(self.entries)

    def __repr__(self):
        return f"<{len(self):,} photographs of {shown(self.manifest.root)}, index {self.folder}>"

    def search(
        self, query: int | ImageRecord | Picture, ranker: Ranker | str | None = None, k: int | None = 20
    ) -> Hits:
        """The k photographs most like an image (None: all), the best first; ``found`` of the answer is False where
        nothing like it is among them, and each result has its ``probability`` and ``group``, as far as there is a
        calibration.

        query: the name of a photograph of the index or the number of its entry, which is then left out; the path of any
        other image, an image of Pillow, uint8 [H, W, 3] in RGB, or an ImageRecord of the index's own model. ranker: a
        reranking method by name (`none`: global search alone), None = as `rrt search query` does. Raises InputError.
        """
        if k is not None:
            check_count("k", k)
        if not isinstance(ranker, Ranker):
            ranker = make_ranker(self.manifest, ranker, whitening=self.whitening)
        picture = None
        if isinstance(query, str | Path):
            number, picture = self.find(str(query)), Path(query)
            query = self._described(query) if number is None else number
        elif isinstance(query, Image.Image | np.ndarray):
            image, query = query, self._described(query)
            picture = pixels_of(image)
        if not isinstance(query, ImageRecord):
            picture = self.file_of(query)
        hits = super().search(query, ranker, k and max(k, LOOKED_AT))
        return look_again(self, hits, ranker, picture).first(k)

    def duplicates(self) -> list[Group]:
        """Groups of files that are the same, or changed copies of one picture: saved anew, resized, cropped, mirrored,
        retouched and so on; those first that take most bytes beside their first file. Nothing is deleted."""
        return find_groups(self)

    def _described(self, image: Picture) -> ImageRecord:
        try:
            if isinstance(image, str | Path):
                if not Path(image).exists():
                    raise InputError(f"neither a file nor a photograph of the index {self.folder}")
                return self._describer.describe(Path(image).absolute())
            with TemporaryDirectory() as folder:  # a model may run in another process
                file = Path(folder) / "query.png"
                Image.fromarray(pixels_of(image)).save(file)
                return self._describer.describe(file)
        except InputError as reason:
            name = shown(str(image)) if isinstance(image, str | Path) else "query"
            raise InputError(f"{name}: {reason}") from None
