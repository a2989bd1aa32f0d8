"""Describes single images for a program that asks: the network stays loaded, an image takes as long as its
convolutions.

    python -m delg_extract.extraction.answer --model rrt_gld_ckpts/delg_small.h5 --max_image_size 320

A request is a line of JSON on standard input, {"image": path, "box": [x1, y1, x2, y2] or null, "output": path}: the
image, turned as its EXIF orientation says, cropped to the box (pixels of the upright image) and described as a
image of its own, becomes a store of one image at "output". The answer is a line on standard output, {"size": [width,
height] of the described pixels} or {"error": reason}. The first line is {"ready": true}; the program ends with its
standard input.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from typing import TextIO

from delg_extract.extraction.extractor import Extractor
from delg_extract.extraction.open import open_network
from delg_extract.extraction.options import (
    Extraction,
    add_model_option,
    add_pca_options,
    add_settings_options,
    requested_extraction,
)
from delg_extract.extraction.parts import to_record
from delg_extract.extraction.pictures import Job, Picture, read_picture
from rrt.command_line.parser import CommandParser, run_command
from rrt.errors import InputError, describe_error
from rrt.store.records import Skipped
from rrt.store.writer import write_store

QUERY = "query"  # the name of the image in a store that is written


def answer_all(extractor: Extractor, asked: Extraction, requests: Iterable[str], answers: TextIO) -> None:
    """Answers requests, a line each, until they end."""
    for line in requests:
        try:
            answer = answer_one(extractor, asked, json.loads(line))
        except (InputError, OSError) as error:
            answer = {"error": describe_error(error)}
        print(json.dumps(answer), file=answers, flush=True)


def answer_one(extractor: Extractor, asked: Extraction, request: dict) -> dict:
    """Writes the store of a request and returns the answer. Raises InputError and OSError."""
    picture = read_picture(Job(QUERY, request["picture"], upright=True))
    if picture.pixels is None:
        return {"error": picture.reason}
    pixels = picture.pixels
    if request.get("box"):
        x1, y1, x2, y2 = request["box"]
        # An image of its own: the reference's factor for crops would leave a small object of a large photograph few
        # pixels.
        pixels = pixels[max(0, y1) : y2, max(0, x1) : x2]
        if 0 in pixels.shape:
            return {
                "error": f"the box {x1},{y1},{x2},{y2} lies outside of the image of {picture.pixels.shape[1]} x "
                f"{picture.pixels.shape[0]} pixels"
            }
    (described,) = extractor.describe([extractor.resize(pixels)])
    record = to_record(Picture(picture.job, pixels), described)
    if isinstance(record, Skipped):
        return {"error": record.reason}
    write_store(request["output"], [record], settings=asked.identity, model_sha256=asked.model_sha256)
    return {"size": list(record.size)}


def parser() -> CommandParser:
    p = CommandParser(__doc__)
    add_model_option(p)
    add_pca_options(add_settings_options(p))
    return p


def main() -> None:
    asked = requested_extraction(parser().parse_args())
    # Answers alone go to standard output, whatever a library prints.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    extractor = Extractor(open_network(asked.model, asked.precision, **asked.override), asked.settings)
    print(json.dumps({"ready": True}), file=answers, flush=True)
    answer_all(extractor, asked, sys.stdin, answers)


if __name__ == "__main__":
    run_command(main)
