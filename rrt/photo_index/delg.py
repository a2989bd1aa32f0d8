"""DELG models for the photo index. The images are described in other processes, because only those load TensorFlow."""

from __future__ import annotations

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
from delg_extract.extraction.options import extraction_of
from rrt.errors import InputError
from rrt.files.images import Box
from rrt.progress import bar, warn
from rrt.store.records import ImageRecord
from rrt.store.schema import parts_path

ROOT = Path(__file__).resolve().parents[2]
Flags = list[list[str]]


def command_line(flags: Flags) -> list[str]:
    """The options in one list, as delg_extract/extract.py takes them."""
    return [word for flag in flags for word in flag]


def identity(flags: Flags) -> tuple[dict, str]:
    """(All settings that determine the descriptors, as JSON; SHA-256 of the model). Raises InputError for invalid flags
    and for a model that does not exist."""
    asked = extraction_of(command_line(flags))
    if asked.left_out:
        warn(asked.left_out)
    return {**asked.identity, **asked.settings.as_json()}, asked.model_sha256


def extract(flags: Flags, table: Path, output: Path, count: int, block: int, num_workers: int, lock: tuple) -> None:
    """As rrt.photo_index.extraction.extract, in parts of ``block`` images."""
    command = [sys.executable, "-m", "delg_extract.extract", *command_line(flags)]
    command += ["--table", str(table), "--output", str(output), "--exif_rotation", "--allow_missing"]
    command += ["--block", str(block), "--num_workers", str(num_workers), "--end_with_stdin"]
    parts = parts_path(output)
    with TemporaryFile() as messages, bar(total=count, what="describing", unit="image") as shown:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=messages,
            env=_environment(),
            pass_fds=lock,
        )
        try:
            while process.poll() is None:
                # The process writes to a file, so its own progress bar would not be seen.
                done = block * sum(".tmp" not in path.name for path in parts.glob("part-*.h5"))
                shown.update(max(0, min(done, count) - shown.n))
                time.sleep(0.2)
        finally:
            assert process.stdin is not None
            process.stdin.close()  # ends the process if it is still running
            process.wait()
        shown.update(count - shown.n if process.returncode == 0 else 0)
        if process.returncode:
            messages.seek(0)
            raise InputError(_reason_of(messages.read().decode(errors="replace"), process.returncode))


def extract_queries(flags: Flags, query_list: str, ground_truth: str, image_dir: str, output: Path) -> None:
    """Writes a store of the query images of a list, upright and cropped to their boxes. Raises InputError when the
    extraction fails."""
    command = [sys.executable, "-m", "delg_extract.extract", *command_line(flags), "--exif_rotation"]
    command += ["--query_list", query_list, "--ground_truth", ground_truth, "--image_dir", image_dir]
    command += ["--output", str(output)]
    finished = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, env=_environment())
    if finished.returncode:
        raise InputError(_reason_of(finished.stderr.decode(errors="replace"), finished.returncode))


def _environment() -> dict:
    """The environment of a process that has to find this package from any working directory."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return os.environ | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "RRT_QUIET": "1"}


def _reason_of(messages: str, status: int) -> str:
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
class DelgDescriber:
    """A process with TensorFlow that describes single images: started when it is first needed, and again when it has
    died.

    flags: how images are described. seconds: limit for one image. work: the function that the process runs, with the
    arguments of describe_image(). One image is described at a time; other calls wait.
    """

    flags: Flags
    seconds: float = 120.0
    work: Callable[..., ImageRecord] = describe_image

    def __post_init__(self):
        self._words = tuple(command_line(self.flags))
        self._turn = threading.Lock()
        self._pool: ProcessPoolExecutor | None = None
        self._children: list[BaseProcess] = []
        self._closed = False

    def start(self) -> None:
        """Starts the process and has it load its network, without waiting for it."""
        with self._turn:
            self._alive().submit(load, self._words)

    def describe(self, image: str | Path, box: Box | None = None) -> ImageRecord:
        """As rrt.photo_index.extraction.Describer. Also raises InputError when the process dies, or takes too long,
        twice."""
        reason = ""
        with self._turn:
            for _ in range(2):  # it may have died since the last image
                try:
                    return self._alive().submit(self.work, self._words, str(image), box).result(self.seconds)
                except BrokenProcessPool:
                    reason = "its process died; out of memory?"
                except TimeoutError:
                    reason = f"it took longer than {self.seconds:g} seconds"
                self._end()
        raise InputError(f"cannot be described: {reason}")

    def close(self) -> None:
        """Ends the process, even while it describes an image."""
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
