"""What gpu.sh does: tests and benchmarks of a GPU, each in a process of its own, as rows of a table.

Nothing but the standard library is imported here, so that a machine with PyTorch alone says row by row what it lacks.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SECONDS = float(os.environ.get("SECONDS_IN_ALL", 460))
# name: (what a row is called, arguments on a GPU beside --device; share of the time that it may take)
BENCHMARKS = {
    "train_rrt": ("training step", [], 0.2),
    "rerank": ("reranking", ["--precisions", "bfloat16", "float32"], 0.4),
    "topk": ("neighbours", ["--rounds", "3"], 0.3),
    "geometric": ("geometric verification", ["--plain_pairs", "2"], 0.2),
    "lite0": ("extraction with lite0", [], 0.15),
}
# The published training: triplets of 36 images of 322,008, that is 12 anchors a step, 15 epochs.
STEPS_OF_GLDV2 = 15 * 322_008 // 12
_LACKING = re.compile(r"No module named '([^']+)'|(\S+) is not installed")
_ABOUT = """
import json, torch
gpu = torch.cuda.is_available()
print(json.dumps({"torch": torch.__version__, "gpu": torch.cuda.get_device_name() if gpu else None}))
"""


def run(command: list[str], seconds: float) -> tuple[int | None, str]:
    """(exit status, None for one that took too long; what it printed)."""
    try:
        done = subprocess.run(
            [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=max(1, seconds)
        )
    except subprocess.TimeoutExpired:
        return None, ""
    return done.returncode, done.stdout + done.stderr


def why(status: int | None, printed: str) -> str:
    """Why a row could not be measured, in a few words."""
    if status is None:
        return "not measured: out of time"
    lacking = _LACKING.search(printed)
    if lacking:
        return f"not measured: {(lacking[1] or lacking[2]).split('.')[0]} is not installed"
    last = printed.strip().splitlines()[-1:] or [f"exit status {status}"]
    return f"failed: {last[0][:200]}"


def test_rows(seconds: float, run=run) -> list[dict]:
    """A row of all tests that are marked ``gpu``."""
    files = [str(path) for path in sorted(ROOT.glob("tests/**/test_*.py")) if "pytest.mark.gpu" in path.read_text()]
    status, printed = run(["-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *files], seconds)
    counts = {what: int(n) for n, what in re.findall(r"(\d+) (passed|failed|skipped|errors?)", printed)}
    known = status in (0, 1) and counts
    note = ", ".join(f"{n} {what}" for what, n in counts.items()) if known else why(status, printed)
    if status == 1:
        note += ": " + "; ".join(line[:120] for line in printed.splitlines() if line.startswith("FAILED"))
    return [_row("tests", "tests that passed", counts.get("passed", 0) if known else None, "", note)]


def benchmark_rows(name: str, device: str, small: bool, seconds: float, run=run) -> list[dict]:
    """The rows of a benchmark of tools/benchmark.py, or one that says why there are none."""
    title, more, _ = BENCHMARKS[name]
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "figures.json"
        given = [*more, "--device", device] if name != "lite0" else more
        command = ["tools/benchmark.py", name, *given, *(["--quick"] if small else []), "--json", str(found)]
        status, printed = run(command, seconds)
        if status != 0 or not found.exists():
            return [_row(title, f"tools/benchmark.py {name}", None, "", why(status, printed))]
        rows = json.loads(found.read_text())["rows"]
    # What the processor's table says of a GPU that is not there is no row of this one.
    rows = [row for row in rows if not str(row["note"]).startswith("no GPU")]
    return [_row(title, *(row[key] for key in ("label", "value", "unit", "note", "target", "met"))) for row in rows]


def training_row(rows: list[dict]) -> list[dict]:
    """All steps of the published training on GLDv2, from the fastest step that was measured."""
    steps = [row["value"] for row in rows if row["unit"] == "s a step" and ": ours" in row["label"] and row["value"]]
    if not steps:
        return []
    hours = min(steps) * STEPS_OF_GLDV2 / 3600
    note = f"extrapolated: {STEPS_OF_GLDV2:,} steps of {1000 * min(steps):.1f} ms, reading not counted"
    return [_row("training step", "GLDv2 training", hours, "hours", note, "<= 1", hours <= 1)]


def _row(part, label, value, unit, note="", target="", met=None):
    return {
        "part": part, "label": label, "value": value, "unit": unit, "note": note, "target": target, "met": met
    }  # fmt: skip


def markdown(about: dict, rows: list[dict]) -> str:
    """The table of all rows under a line about the machine."""
    lines = [
        f"{about['command']}, {about['date']}, {about['gpu'] or 'processor'}, PyTorch {about['torch']}:",
        "",
        "| part | what | value | unit | target | met | note |",
        "| --- | --- | ---: | --- | --- | --- | --- |",
    ]
    for row in rows:
        value = "-" if row["value"] is None else f"{row['value']:.4g}"
        met = {True: "yes", False: "no", None: ""}[row["met"]]
        cells = [row["part"], row["label"], value, row["unit"], row["target"], met, row["note"]]
        lines.append("| " + " | ".join(str(cell).replace("|", "/") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def write(path: Path, text: str) -> None:
    """A file that is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def main(words: list[str] | None = None, run=run) -> int:
    """Measure, print the table, write both files after every part."""
    parser = argparse.ArgumentParser(prog="rrt_scripts/gpu.sh", description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", default="logs/gpu", type=Path)
    parser.add_argument("--small", action="store_true", help="tiny sizes on the processor")
    args = parser.parse_args(words)
    began = time.monotonic()
    status, printed = run(["-c", _ABOUT], 120)
    if status != 0:
        print(
            f"error: {sys.executable}: PyTorch cannot be loaded ({why(status, printed)}); install it", file=sys.stderr
        )
        return 1
    about = json.loads(printed.strip().splitlines()[-1])
    if not about["gpu"] and not args.small:
        print("no GPU that PyTorch can use is here: nothing was measured")
        return 0
    device = "cpu" if args.small else "cuda"
    about |= {"command": "bash rrt_scripts/gpu.sh" + " --small" * args.small, "date": date.today().isoformat()}
    rows: list[dict] = []
    for name in ("tests", *BENCHMARKS):
        left = SECONDS - (time.monotonic() - began)
        share = 0.3 if name == "tests" else BENCHMARKS[name][2]
        seconds = min(left, share * SECONDS)
        print(f"{name} ({time.monotonic() - began:.0f} s)", flush=True)
        if left < 2:
            found = [_row(name, name, None, "", why(None, ""))]
        elif name == "tests":
            found = test_rows(seconds, run)
        else:
            found = benchmark_rows(name, device, args.small, seconds, run)
        rows += found + (training_row(found) if name == "train_rrt" else [])
        # After every part, so that a machine that goes away leaves what was measured.
        about["seconds"] = round(time.monotonic() - began)
        write(args.folder / "gpu.json", json.dumps({"machine": about, "rows": rows}, indent=1) + "\n")
        write(args.folder / "gpu.md", markdown(about, rows))
    print(markdown(about, rows), end="")
    print(f"wrote gpu.json and gpu.md in {args.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
