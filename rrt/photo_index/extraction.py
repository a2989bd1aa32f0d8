"""The processes that describe images: TensorFlow is loaded in them alone, stores are what they hand over."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

from delg_extract.extraction.options import (
    add_model_option,
    add_pca_options,
    add_settings_options,
    requested_extraction,
)
from rrt.errors import InputError
from rrt.files.atomic import sha256_of_file
from rrt.progress import bar
from rrt.store.schema import canonical_settings, first_difference, parts_path

ROOT = Path(__file__).resolve().parents[2]
SHIPPED_MODEL = ROOT / "rrt_gld_ckpts" / "delg_small.h5"
SHIPPED_WHITENING = SHIPPED_MODEL.with_name("whitening_small.npz")
# Those of rrt_scripts/quickstart.sh.
SHIPPED_FLAGS = [["--max_image_size", "320"], ["--max_features", "200"], ["--no-block3_strides"]]
BLOCK = 32  # images a part: what a kill can cost
_VALUES = (
    "model",
    "preset",
    "config",
    "scales",
    "max_features",
    "score_threshold",
    "max_image_size",
    "min_image_size",
    "global_scales",
    "precision",
    "pca_dir",
    "pca_dim",
)
_SWITCHES = ("block3_strides", "normalize_scales")
_PATHS = ("model", "config", "pca_dir")


def add_extraction_options(parser: argparse.ArgumentParser) -> None:
    """The options of delg_extract/extract.py that say how images are described."""
    add_model_option(parser)
    add_pca_options(add_settings_options(parser))


def flags_of(args: argparse.Namespace) -> list[list[str]]:
    """The options that were given, each with its values, as another process takes them, paths absolute; [] when none
    was."""
    flags = []
    for name in _VALUES:
        value = getattr(args, name)
        if value is None or (name == "precision" and value == "float32"):
            continue
        values = value if isinstance(value, list) else [value]
        flags.append([f"--{name}", *(os.path.abspath(value) if name in _PATHS else str(value) for value in values)])
    for name in _SWITCHES:
        if getattr(args, name) is not None:
            flags.append([f"--{name}" if getattr(args, name) else f"--no-{name}"])
    if args.pca_whitening:
        flags.append(["--pca_whitening"])
    for name in ("use_local", "use_global"):
        if getattr(args, name) is False:
            raise InputError(f"--no-{name}: search needs global and local descriptors; leave the flag out")
    return flags


def merged_flags(known: list[list[str]], given: list[list[str]]) -> list[list[str]]:
    """The options known with those given in their places."""
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
            "one has "
            f"{asked['model_sha256'][:12]}...; give the same model, or build another index"
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


def extract(flags: list[list[str]], table: Path, output: Path, count: int, num_workers: int, lock: int) -> None:
    """Describes the images of a table (see delg_extract/extract.py --table), ``count`` of them, into a store. What an
    earlier run had finished is kept. lock: a descriptor that the process holds open as long as it lives. Raises
    InputError when it fails."""
    command = [
        sys.executable,
        "-m",
        "delg_extract.extract",
        *command_line(flags),
        "--table",
        str(table),
        "--output",
        str(output),
        "--exif_rotation",
        "--allow_missing",
        "--block",
        str(BLOCK),
        "--num_workers",
        str(num_workers),
        "--end_with_stdin",
    ]
    parts = parts_path(output)
    with TemporaryFile() as messages, bar(total=count, what="describing", unit="image") as shown:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=messages,
            env=working_environment(),
            pass_fds=(lock,),
        )
        try:
            while process.poll() is None:
                # The bar of that process would be drawn for a file.
                done = BLOCK * sum(".tmp" not in path.name for path in parts.glob("part-*.h5"))
                shown.update(max(0, min(done, count) - shown.n))
                time.sleep(0.2)
        finally:
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
    killed = "its process was killed; out of memory?" if status < 0 else f"status {status}"
    return (
        errors[-1]
        if errors
        else f"the extraction ended early ({lines[-1][:300] if lines and status > 0 else killed}); run again"
    )


@dataclass
class Describer:
    """A process of delg_extract/extraction/answer.py that is started when it is first needed, and again when it has
    died.

    command: what is started; flags: how images are described. One request at a time; others wait. seconds: for an
    answer.
    """

    flags: list[list[str]]
    command: tuple[str, ...] = (sys.executable, "-m", "delg_extract.extraction.answer")
    seconds: float = 120.0

    def __post_init__(self):
        self._process, self._turn = None, threading.Lock()

    def start(self) -> None:
        """Have it load its network now, without waiting for that."""
        with self._turn:
            self._alive()

    def describe(
        self, picture: str | Path, output: str | Path, box: tuple[int, int, int, int] | None = None
    ) -> tuple[int, int]:
        """Writes a store of the image (upright, cropped to ``box``) to ``output`` -> (width, height) described.
        Raises InputError with the reason alone when the image cannot be described, or the process cannot be kept
        alive."""
        request = json.dumps({"picture": str(picture), "box": box, "output": str(output)}) + "\n"
        with self._turn:
            for _ in range(2):  # one that died since the last request, or by this one
                answer = self._ask(request)
                if answer is not None:
                    break
                self._process.kill()
                self._process.wait()  # its pipes close before it is seen to have ended
            else:
                raise InputError(f"cannot be described: {self._last_words()}")
        if "error" in answer:
            raise InputError(answer["error"])
        return tuple(answer["size"])

    def _ask(self, request: str) -> dict | None:
        """The answer, None when the process died."""
        process = self._alive()
        watch = threading.Timer(self.seconds, process.kill)
        watch.start()
        try:
            process.stdin.write(request)
            process.stdin.flush()
            line = process.stdout.readline()
            while line and json.loads(line) == {"ready": True}:
                line = process.stdout.readline()
            return json.loads(line) if line else None
        except BrokenPipeError:
            return None
        finally:
            watch.cancel()

    def _last_words(self) -> str:
        status = self._process.wait()
        self._messages.seek(0)
        return reason_of(self._messages.read().decode(errors="replace"), status)

    def _alive(self) -> subprocess.Popen:
        if self._process is None or self._process.poll() is not None:
            self._end()
            self._messages = TemporaryFile()
            self._process = subprocess.Popen(
                [*self.command, *command_line(self.flags)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._messages,
                env=working_environment(),
                text=True,
                encoding="utf-8",
            )
        return self._process

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout, self._messages):
                try:
                    pipe.close()
                except BrokenPipeError:
                    pass
            self._process = None

    def close(self) -> None:
        with self._turn:
            self._end()


@contextmanager
def describing(flags: list[list[str]]):
    """A Describer that ends with the block."""
    describer = Describer(flags)
    try:
        yield describer
    finally:
        describer.close()
