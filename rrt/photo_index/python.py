"""Search in a folder of photographs in Python:

index = rrt.PhotoIndex.build("photographs")
[hit.name for hit in index.search("tower.jpg")]
"""

from __future__ import annotations

from functools import cached_property
from numbers import Integral
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from rrt.errors import InputError, check_count
from rrt.extraction.images import ImageLike, pixels_of
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
    """An index of a folder of photographs, as `rrt search` makes it, opened by the path of the index.

    ``entries`` is the list of its photographs, ``len`` their number. Raises InputError where there is no index.
    """

    @classmethod
    def build(cls, photos: str | Path, index: str | Path | None = None, **settings) -> PhotoIndex:
        """Makes an index of the folder ``photos``, or updates it, and opens it. index: folder of the index, None =
        `PHOTOS.index` next to ``photos``; settings: fields of ``rrt.photo_index.update.BuildSettings``. Raises
        InputError."""
        folder = Path(f"{Path(photos).absolute()}.index" if index is None else index)
        update(folder, str(photos), BuildSettings(**settings))
        return cls(folder)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def close(self) -> None:
        """Releases the model that describes queries; a later search loads it again."""
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
        self, query: int | ImageRecord | ImageLike, ranker: Ranker | str | None = None, k: int | None = 20
    ) -> Hits:
        """The k photographs most like an image (None: all), the best first. Their ``found`` is False where nothing like
        the image is among them; each has a ``probability`` and a ``group`` where there is a calibration.

        query: the name of a photograph of the index or the number of its entry, which is then left out of the results;
        the path of any other image, an image of Pillow, uint8 [H, W, 3] in RGB, or an ImageRecord of the index's own
        model. ranker: name of a reranking method (`none`: only global search), None = as `rrt search query` does.
        Raises InputError.
        """
        if k is not None:
            check_count("k", k)
        if not isinstance(ranker, Ranker):
            ranker = make_ranker(self.manifest, ranker, whitening=self.whitening)
        image = None  # for the second look
        if isinstance(query, str | Path):
            number, image = self.find(str(query)), Path(query)
            query = self._described(query) if number is None else number
        elif isinstance(query, Image.Image | np.ndarray):
            described = self._described(query)  # first: it names what is wrong
            image, query = pixels_of(query), described
        if not isinstance(query, ImageRecord):
            if not isinstance(query, Integral) or not 0 <= query < len(self):
                raise InputError(f"{query!r}: neither an image nor the number of one of {len(self):,} entries")
            image = self.file_of(query)
        hits = super().search(query, ranker, k and max(k, LOOKED_AT))
        return look_again(self, hits, ranker, image).first(k)

    def duplicates(self) -> list[Group]:
        """Groups of files that are the same, or changed copies of one image: saved again, resized, cropped, mirrored,
        retouched and so on. Groups whose copies take most bytes come first. Nothing is deleted."""
        return find_groups(self)

    def _described(self, image: ImageLike) -> ImageRecord:
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
