"""Fills in `<!-- commands -->` of docs/commands.md for mkdocs: the help of every command, as its parser prints it."""

import contextlib
import io
import os
import re
import sys
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
MARK = "<!-- commands -->"
_DELG = ("pretrain", "build_image_dataset", "download_dataset", "download_weights", "train", "export", "train_pca")
_DELG += ("extract", "match_images", "show_attention")


def on_page_markdown(markdown: str, page, **_) -> str:
    """Called by mkdocs for every page."""
    return markdown.replace(MARK, all_help()) if page.file.src_uri == "commands.md" else markdown


def all_help() -> str:
    """A heading and the help of every command; of those that have commands of their own also of each of these."""
    from rrt.commands.__main__ import COMMANDS, DOORS

    calls = {f"rrt {name}": module for name, module in DOORS.items() if isinstance(module, str)}
    calls |= {
        f"rrt {a} {b}": module for a, kinds in DOORS.items() if isinstance(kinds, dict) for b, module in kinds.items()
    }
    calls |= {f"rrt {name}": name for name in COMMANDS if name not in calls.values()}
    parts = [part for call, module in calls.items() for part in help_of(call, f"rrt.commands.{module}")]
    for name in _DELG:
        parts += help_of(f"python delg_extract/{name}.py", f"delg_extract.{name}")
    return "\n\n".join(parts)


def help_of(call: str, module: str, words: tuple[str, ...] = ()) -> list[str]:
    """Markdown of what ``call words --help`` prints."""
    command = import_module(module)
    if hasattr(command, "ex"):
        printed = command.ex.help_text(call)
    else:
        printed = _printed(command.main, [call, *words, "--help"])
    title = " ".join([call, *words])
    found = [f"### `{title}`\n\n```text\n{printed.strip()}\n```"]
    kinds = re.search(r"^positional arguments:\n  \{([\w,]+)\}", printed, re.MULTILINE)
    if kinds and not words:
        found += [part for kind in kinds[1].split(",") for part in help_of(call, module, (kind,))]
    return found


def _printed(main, argv: list[str]) -> str:
    output, before = io.StringIO(), sys.argv
    os.environ["COLUMNS"] = "110"
    sys.argv = argv
    try:
        with contextlib.redirect_stdout(output), contextlib.suppress(SystemExit):
            main()
    finally:
        sys.argv = before
    return output.getvalue()
