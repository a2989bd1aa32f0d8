"""What the page's server keeps in memory: uploaded images, and descriptors of queries."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Generic, NamedTuple, TypeVar

from PIL import Image

from rrt.files.images import Box, small_jpeg
from rrt.photo_index.extraction import Describer
from rrt.store.records import ImageRecord

VIEW_SIDE = 1200  # longest side, in pixels, of an image that is shown large
V = TypeVar("V")


class Upload(NamedTuple):
    """An uploaded image. content: bytes of its file; jpeg: a smaller upright JPEG; size: (width, height), upright."""

    content: bytes
    name: str
    jpeg: bytes
    size: tuple[int, int]

    @classmethod
    def of(cls, file: Path, name: str, size: tuple[int, int]) -> Upload:
        """The Upload of a file whose header gives ``size`` (width, height). Raises Unreadable."""
        jpeg = small_jpeg(file, VIEW_SIDE, turned=True)
        with Image.open(io.BytesIO(jpeg)) as image:
            turned = (image.width - image.height) * (size[0] - size[1]) < 0  # a nearly square one is square when small
        return cls(file.read_bytes(), name, jpeg, (size[1], size[0]) if turned else size)

    @contextmanager
    def as_file(self) -> Iterator[Path]:
        """A temporary file with its bytes, which is removed at the end of the block."""
        with TemporaryDirectory(prefix="rrt_upload_") as folder:
            file = Path(folder) / "picture"
            file.write_bytes(self.content)
            yield file


class Kept(Generic[V]):
    """The values last used: at most ``most`` of them, whose weights (``weigh``) add up to at most ``weight``. Safe for
    threads."""

    def __init__(self, most: int, weight: float = float("inf"), weigh: Callable[[V], int] = lambda _: 0):
        self.most, self.weight, self._weigh = most, weight, weigh
        self._values: OrderedDict[Hashable, V] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self):
        return len(self._values)

    def get(self, key: Hashable) -> V | None:
        """The value of ``key``, None where it is not kept any more."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def put(self, key: Hashable, value: V) -> None:
        """Keeps a value. The values used longest ago are dropped to make room; a value that is too heavy by itself is
        not kept."""
        with self._lock:
            self._values.pop(key, None)
            self._values[key] = value
            while len(self._values) > self.most or sum(map(self._weigh, self._values.values())) > self.weight:
                self._values.popitem(last=False)


class Recalling:
    """Describes one image, whose SHA-256 is ``content``, and each box of it only once. tell: is called with what is
    being done."""

    def __init__(self, describer: Describer, kept: Kept[ImageRecord], content: str, tell: Callable[[str], None]):
        self._describer, self._kept, self._content, self._tell = describer, kept, content, tell

    def describe(self, image: str | Path, box: Box | None = None) -> ImageRecord:
        """As Describer.describe."""
        record = self._kept.get((self._content, box))
        if record is None:
            self._tell("describing")
            record = self._describer.describe(image, box)
            self._kept.put((self._content, box), record)
        self._tell("comparing")
        return record
