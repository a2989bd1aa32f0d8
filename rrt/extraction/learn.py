"""Learning what is put on top of a frozen network, from the images of a list."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rrt.errors import InputError
from rrt.extraction.attention import fit_attention, gains
from rrt.extraction.describer import Describer
from rrt.extraction.extract import described
from rrt.extraction.lite0.learning import fit_projection
from rrt.extraction.projections import Projections, project
from rrt.formats.image_jobs import Job
from rrt.progress import bar, waiting
from rrt.store.records import Skipped

# Local descriptors that are learned from, of an image and of all together.
PER_IMAGE, IN_ALL = 200, 400_000
# Images of the same label and of others that a descriptor is looked for in, and the ridge of the regression.
SAME, OTHERS, RIDGE = 4, 8, 0.1


def learn_projection(
    describer: Describer,
    jobs: Sequence[Job],
    output: str | Path,
    dim: int = 128,
    global_dim: int | None = None,
    powers: tuple[float, float] = (0.0, 0.5),
    labels: Sequence[int] | np.ndarray | None = None,
    seed: int = 0,
) -> tuple[Projections, list[Skipped]]:
    """PCA of the local descriptors to ``dim`` dimensions, and of the global ones to ``global_dim`` (None: they stay),
    each component divided by its eigenvalue to the power of ``powers`` (local, global; 0.5 whitens), and with
    ``labels`` (of the jobs) an attention; written to ``output`` -> (what was learned, images left out).

    The describer has no projection yet, and where an attention is learned the length of a local descriptor as its
    attention. Raises InputError when no image can be read or the descriptors vary in fewer directions.
    """
    if not str(output).endswith(".npz"):
        raise InputError(f"{output}: the name of a file of projections ends in .npz")
    generator = np.random.default_rng(seed)
    limit = max(1, min(PER_IMAGE, IN_ALL // max(1, len(jobs))))
    records, known, skipped = [], [], []
    for position, record in enumerate(bar(described(describer, jobs), "describing", "image", total=len(jobs))):
        if isinstance(record, Skipped):
            skipped.append(record)
            continue
        chosen = generator.permutation(len(record.attention))[:limit]
        records.append((record.global_, record.descriptors[chosen].astype(np.float16), record.attention[chosen]))
        known.append(labels[position] if labels is not None else 0)
    if not records:
        raise InputError(
            f"none of {len(jobs)} images can be learned from, first {skipped[0].name}: {skipped[0].reason}"
        )
    with waiting("learning"):
        rows = np.concatenate([local for _, local, _ in records]).astype(np.float32)
        local = fit_projection(rows, dim, powers[0])
        global_ = None
        if global_dim:
            global_ = fit_projection(np.stack([vector for vector, _, _ in records]), global_dim, powers[1])
        attention = None
        if labels is not None:
            units = [project(local, descriptors.astype(np.float32)) for _, descriptors, _ in records]
            found = gains(units, np.array(known), SAME, OTHERS, generator)
            cells = [descriptors.astype(np.float32) * length[:, None] for _, descriptors, length in records]
            usable = [pair for pair in zip(cells, found) if pair[1] is not None]
            if not usable:
                raise InputError("no label has three images; give a list with more, or learn no attention")
            own, gain = (np.concatenate(parts) for parts in zip(*usable))
            attention = fit_attention(own, gain, RIDGE)
    learned = Projections(local, global_, attention)
    learned.save(output)
    return learned, skipped
