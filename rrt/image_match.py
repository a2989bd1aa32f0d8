"""Two images compared in one call.

found = rrt.match("a.jpg", "b.jpg")
found.inliers, found.score
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from rrt.extraction.describer import LITE0, Describer
from rrt.extraction.images import ImageLike, describe, describer_of, pixels_of
from rrt.matching.images import BORDER, ImageFeatures, Matches, inner, match_images
from rrt.rerankers.base import RerankMethod
from rrt.rerankers.build import make_method
from rrt.rerankers.shipped import METHOD, SETTINGS, calibration_of_descriptors
from rrt.store.records import ImageRecord
from rrt.viz.two_images import draw_matches, two_image_figure

if TYPE_CHECKING:
    from rrt.network.reranker import Reranker


@dataclass(frozen=True)
class Match:
    """How alike two images are. records: their descriptors; score: of the reranker; probability: that both show the
    same, were one among the first that a search finds for the other, None where the score is not calibrated; matches:
    of their local descriptors, verified by a plane transform; pixels uint8 [H, W, 3] of each, upright.
    """

    records: tuple[ImageRecord, ImageRecord]
    score: float
    probability: float | None
    matches: Matches
    features: tuple[ImageFeatures, ImageFeatures]
    pixels: tuple[np.ndarray, np.ndarray]

    @property
    def inliers(self) -> int:
        """Matches that one plane transform explains. A few prove nothing: unrelated images reach some by chance."""
        return len(self.matches.inliers)

    def __repr__(self):
        first, second = (record.name for record in self.records)
        sure = "" if self.probability is None else f", probability {self.probability:.2f}"
        return f"<{first} and {second}: score {self.score:.3f}{sure}, {self.inliers} inliers>"

    def draw(self, path: str | Path | None = None) -> Image.Image:
        """Both images beside each other with a line for every inlier, also written to a file (.png, .jpg) if named."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        figure = two_image_figure(list(self.pixels), repr(self)[1:-1])
        ends = [image.points[rows] for image, rows in zip(self.features, self.matches.inliers.T)]
        names = [f"{image.name}: {len(image.points)} features" for image in self.features]
        title = f"{self.inliers} inliers of {len(self.matches.pairs)} matches"
        draw_matches(figure, list(self.pixels), names, ends[0], ends[1], title=title)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        drawn = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
        if path is not None:
            drawn.save(path)
        return drawn


def match(
    a: ImageLike,
    b: ImageLike,
    model: str | Describer = "lite0",
    reranker: Reranker | RerankMethod | None = None,
    geometry: str = "affine",
) -> Match:
    """Compare two images.

    a, b, model: as for ``describe``; reranker: an object with ``score``, as ``Reranker.from_pretrained`` gives (None:
    of lite0 what `rrt search` takes by default, of other models plain matching); geometry: `affine` or `homography`, of
    the verification. Raises InputError.
    """
    pixels = pixels_of(a), pixels_of(b)
    records = describe(a, model), describe(b, model)
    describer = describer_of(model)
    name = METHOD if describer.identity.get("model") == LITE0 else "maxsim"
    scorer = reranker or make_method(name, SETTINGS[name])
    features = _features(records[0]), _features(records[1])
    matches = match_images(*features, geometry=geometry)
    score = scorer.score(*records)
    if isinstance(scorer, RerankMethod):
        calibration = calibration_of_descriptors(scorer, describer.identity)
    else:
        calibration = getattr(scorer, "calibration", None)
    probability = float(calibration(score)) if calibration else None
    return Match(records, score, probability, matches, features, pixels)


def _features(record: ImageRecord) -> ImageFeatures:
    width, height = record.size
    return inner(ImageFeatures(record.name, (width, height), record.keypoints, record.descriptors), BORDER)
