"""Feature files as hloc writes them, for tests."""

import h5py
import numpy as np

KEYS = ("keypoints", "descriptors", "scores", "image_size", "global_descriptor")


def write_features(path, records, keys=KEYS, dtype=np.float32):
    """The ImageRecords as a group an image with the datasets `keys`; hloc's as_half is dtype=float16."""
    with h5py.File(path, "w", libver="latest") as file:
        for record in records:
            values = {
                "keypoints": record.keypoints,
                "descriptors": record.descriptors.T,
                "scores": record.attention,
                "image_size": np.array(record.size),
                "global_descriptor": record.global_,
            }
            for key in keys:
                file[f"{record.name}/{key}"] = values[key] if key == "image_size" else values[key].astype(dtype)
    return path
