"""The processes that describe images: TensorFlow is loaded in them alone, stores are what they hand over."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryFile

from delg_extract.extraction.answer import describe_image, load, start_worker
from delg_extract.extraction.options import (
    add_model_option,
    add_pca_options,
    add_settings_options,
    requested_extraction,
)
from rrt.errors import InputError
from rrt.files.atomic import sha256_of_file
from rrt.files.pictures import Box
from rrt.progress import bar
from rrt.store.schema import canonical_settings, first_difference, parts_path

ROOT = Path(__file__).resolve().parents[2]
SHIPPED_MODEL = ROOT / "rrt_gld_ckpts" / "delg_small.h5"
SHIPPED_WHITENING = SHIPPED_MODEL.with_name("whitening_small.npz")
# Those of rrt_scripts/quickstart.sh.
SHIPPED_FLAGS = [["--max_image_size", "320"], ["--max_features", "200"], ["--no-block3_strides"]]
BLOCK = 32  # images a part: what a kill can cost
_VALUES = (
    *("model", "preset", "config", "scales", "max_features", "score_threshold", "max_image_size", "min_image_size"),
    *("global_scales", "precision", "pca_dir", "pca_dim"),
)
_SWITCHES = ("block3_strides", "normalize_scales")
_PATHS = ("model", "config", "pca_dir")


def add_extraction_options(parser: argparse.ArgumentParser) -> None:
    """The options of delg_extract/extract.py that say how images are described."""
    add_model_option(parser)
    add_pca_options(add_settings_options(parser))


def flags_of(args: argparse.Namespace) -> list[list[str]]:
    """The options that were given, each with its values, paths absolute, as another process takes them. Raises
    InputError for descriptors that search needs and that are switched off."""
    flags = []
    for name in _VALUES:
        value = getattr(args, name)
        if value is None or (name == "precision" and value == "float32"):
            continue
        values = value if isinstance(value, list) else [value]
        flags.append([f"--{name}", *(os.path.abspath(value) if name in _PATHS else str(value) for value in values)])
    switches = {name: getattr(args, name) for name in _SWITCHES}
    flags += [[f"--{name}" if on else f"--no-{name}"] for name, on in switches.items() if on is not None]
    if args.pca_whitening:
        flags.append(["--pca_whitening"])
    for name in ("use_local", "use_global"):
        if getattr(args, name) is False:
            raise InputError(f"--no-{name}: search needs global and local descriptors; leave the flag out")
    return flags


def merged_flags(known: list[list[str]], given: list[list[str]]) -> list[list[str]]:
    """The options that were known, except those that are given again, and the options given."""
    names = {flag[0].replace("--no-", "--") for flag in given}
    return [flag for flag in known if flag[0].replace("--no-", "--") not in names] + given


def command_line(flags: list[list[str]]) -> list[str]:
    """The options as a command takes them. Without a model they mean the shipped one, and its settings unless they say
    others."""
    if not any(flag[0] in ("--model", "--preset", "--config") for flag in flags):
        flags = [["--model", str(SHIPPED_MODEL)], *SHIPPED_FLAGS, *flags]
    return [word for flag in flags for word in flag]


def describe_extraction(flags: list[list[str]]) -> dict:
    """What a manifest keeps of how images are described: {"flags", "model_sha256", "settings"}. Raises InputError for
    flags that cannot be and for a model that is not there."""
    parser = argparse.ArgumentParser()
    add_extraction_options(parser)
    asked = requested_extraction(parser.parse_args(command_line(flags)))
    settings = canonical_settings("index", {**asked.identity, **asked.settings.as_json(), "exif_rotation": True})
    return {"flags": flags, "model_sha256": asked.model_sha256, "settings": settings}


def is_shipped(known: dict) -> bool:
    """Whether what describe_extraction() gave is of the shipped model."""
    return SHIPPED_MODEL.exists() and known["model_sha256"] == sha256_of_file(SHIPPED_MODEL)


def check_same_extraction(folder: Path, known: dict, asked: dict) -> None:
    """InputError, naming the first difference, unless images would be described as those of the index are."""
    if known["model_sha256"] != asked["model_sha256"]:
        raise InputError(
            f"{folder}: its photographs are described by the model of SHA-256 {known['model_sha256'][:12]}..., this "
            f"one has {asked['model_sha256'][:12]}...; give the same model, or build another index"
        )
    difference = first_difference(known["settings"], asked["settings"])
    if difference:
        setting, old, new = difference
        raise InputError(
            f"{folder}: its photographs are described with {setting} = {json.dumps(old)}, now it is {json.dumps(new)}; "
            "leave the options of the extraction out, or build another index"
        )


def working_environment() -> dict:
    """Of processes that find this package wherever they start."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return os.environ | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}


def extract(
    flags: list[list[str]], table: Path, output: Path, count: int, num_workers: int, lock: tuple[int, ...]
) -> None:
    """Describes the images of a table (see delg_extract/extract.py --table), ``count`` of them, into a store. What an
    earlier run had finished is kept. lock: descriptors that the process holds open as long as it lives. Raises
    InputError when it fails."""
    command = [sys.executable, "-m", "delg_extract.extract", *command_line(flags)]
    command += ["--table", str(table), "--output", str(output), "--exif_rotation", "--allow_missing"]
    command += ["--block", str(BLOCK), "--num_workers", str(num_workers), "--end_with_stdin"]
    parts = parts_path(output)
    with TemporaryFile() as messages, bar(total=count, what="describing", unit="image") as shown:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=messages,
            env=working_environment(),
            pass_fds=lock,
        )
        try:
            while process.poll() is None:
                # The bar of that process would be drawn for a file.
                done = BLOCK * sum(".tmp" not in path.name for path in parts.glob("part-*.h5"))
                shown.update(max(0, min(done, count) - shown.n))
                time.sleep(0.2)
        finally:
            assert process.stdin is not None
            process.stdin.close()  # ends it, if it is at work yet
            process.wait()
        shown.update(count - shown.n if process.returncode == 0 else 0)
        if process.returncode:
            messages.seek(0)
            raise InputError(reason_of(messages.read().decode(errors="replace"), process.returncode))


def reason_of(messages: str, status: int) -> str:
    """The error line of a process that failed, or the last line it wrote."""
    lines = [line.strip() for line in messages.replace("\r", "\n").splitlines() if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    if errors:
        return errors[-1]
    if status < 0:
        reason = "its process was killed; out of memory?"
    else:
        reason = lines[-1][:300] if lines else f"status {status}"
    return f"the extraction ended early ({reason}); run again"


@dataclass
class Describer:
    """A process with TensorFlow that describes single images: started when it is first needed, and again when it has
    died.

    flags: how images are described. One image at a time; others wait. seconds: for one image. work: what the process
    runs, with the arguments of describe_image().
    """

    flags: list[list[str]]
    seconds: float = 120.0
    work: Callable[..., tuple[int, int]] = describe_image

    def __post_init__(self):
        self._words = tuple(command_line(self.flags))
        self._turn = threading.Lock()
        self._pool: ProcessPoolExecutor | None = None
        self._children: list[BaseProcess] = []
        self._closed = False

    def start(self) -> None:
        """Have it load its network now, without waiting for that."""
        with self._turn:
            self._alive().submit(load, self._words)

    def describe(self, image: str | Path, output: str | Path, box: Box | None = None) -> tuple[int, int]:
        """Writes a store of the image (upright, cropped to ``box``) to ``output`` -> (width, height) described.
        Raises InputError with the reason alone when the image cannot be described, or the process cannot be kept
        alive."""
        reason = ""
        with self._turn:
            for _ in range(2):  # it may have died since the last image
                try:
                    return (
                        self._alive().submit(self.work, self._words, str(image), str(output), box).result(self.seconds)
                    )
                except BrokenProcessPool:
                    reason = "its process died; out of memory?"
                except TimeoutError:
                    reason = f"it took longer than {self.seconds:g} seconds"
                self._end()
        raise InputError(f"cannot be described: {reason}")

    def close(self) -> None:
        """End the process, also in the middle of an image."""
        self._closed = True
        self._kill()
        with self._turn:
            self._end()

    def _alive(self) -> ProcessPoolExecutor:
        if self._closed:
            raise InputError("cannot be described: the program ends")
        if self._pool is None:
            # A process that runs TensorFlow must not be a fork of one that runs PyTorch.
            before = multiprocessing.active_children()
            self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), start_worker)
            self._pool.submit(os.getpid)  # the first task starts the process
            self._children = [child for child in multiprocessing.active_children() if child not in before]
        return self._pool

    def _kill(self) -> None:
        for child in self._children:
            child.kill()

    def _end(self) -> None:
        if self._pool is not None:
            self._kill()
            self._pool.shutdown(cancel_futures=True)
            self._pool, self._children = None, []
