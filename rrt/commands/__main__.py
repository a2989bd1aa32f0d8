"""`rrt NAME ...` and `python -m rrt.commands NAME ...` for every command; each is loaded only when it is called."""

import difflib
import os
import sys
from importlib import import_module
from typing import NoReturn

from rrt.command_line.output import flush_output

# {name of the module in rrt/commands: what it does}
COMMANDS = {
    "calibrate": "how scores of a reranking method become probabilities that people can read",
    "check_store": "check a descriptor store: schema, offsets, finite values, unit length, completeness",
    "choose_method": "the reranking method that is best on held-out landmarks, over several comparisons",
    "classic_table": "average precision of every query of the classic Oxford5k or Paris6k",
    "compare": "reranking methods compared on one test set: accuracy, time and memory",
    "compare_recipes": "recipes of training compared over several seeds",
    "compare_stores": "what fewer bytes for an image cost each reranking method",
    "compare_tokens": "accuracy and time by the number of local descriptors",
    "compress_store": "make a descriptor store with fewer bytes an image of another",
    "doctor": "what is installed here, what works, and what is missing for the rest",
    "download_revisited": "fetch images and ground truth of ROxford5k and RParis6k",
    "encode_store": "encode the images of a store once, for reranking by model.LATE",
    "evaluate_revisited": "measure global search and its reranking on a test set",
    "experiment": "train a reranking transformer on the descriptors of a store",
    "export_delg": "write a descriptor store as a folder of DELG feature files",
    "extract": "extract descriptors of the images of image lists into a store",
    "import_arrays": "turn NumPy arrays of descriptors into a descriptor store",
    "import_delg": "turn a folder of DELG feature files into a descriptor store",
    "import_hloc": "turn the feature files of hloc into a descriptor store",
    "learn_attention": "learn from a LATE which parts of an image are worth looking at",
    "learn_projection": "learn what makes the descriptors of a frozen backbone short and good",
    "learn_whitening": "learn a whitening of global descriptors from a store",
    "make_flat": "make photographs of flat things, covers and posters, to measure on",
    "make_lite0": "make the shipped model of descriptors from published weights",
    "make_scenes": "make the synthetic landmark scenes",
    "make_views": "make views of photographs to train on",
    "match_images": "match two images by their local descriptors, verified and drawn",
    "measure_run": "measure TREC run files of any program",
    "prepare_data": "make image lists, and ground truth of Google Landmarks v2",
    "prepare_gnd": "ground truth from one form into another",
    "prepare_topk_gldv2": "find the nearest neighbours of every training image",
    "prepare_topk_revisited": "rank the gallery of a test set for every query by global descriptors",
    "published": "the published checkpoints, and the figures of the literature for them",
    "report": "evaluations as a folder of web pages",
    "search": "search in your own photographs",
    "show_pair": "draw why two images match, or do not",
    "strip_checkpoint": "make a small checkpoint to pass on",
    "train_codebook": "learn a codebook of visual words for the reranker asmk",
    "train_val_split": "hold out landmarks of a training list as a validation set",
    "tune_fusion": "choose how global similarity and reranker are blended",
    "verify_pairs": "how well the count of verified matches tells images of the same building",
}
# {name: the command behind it}, or {name: {kind: the command behind NAME KIND}}: what most people come for.
DOORS: dict[str, str | dict[str, str]] = {
    "search": "search",
    "match": "match_images",
    "extract": "extract",
    "import": {"delg": "import_delg", "hloc": "import_hloc", "arrays": "import_arrays"},
    "topk": {"revisited": "prepare_topk_revisited", "gldv2": "prepare_topk_gldv2"},
    "train": "experiment",
    "evaluate": "evaluate_revisited",
    "report": "report",
    "doctor": "doctor",
}


def describe_commands(program: str) -> str:
    """What ``program`` --help prints: a line a command."""
    doors = [
        f"  {name:<24}{COMMANDS[door]}" if isinstance(door, str) else _describe_kinds(name, door)
        for name, door in DOORS.items()
    ]
    lines = [f"  {name:<24}{meaning}" for name, meaning in COMMANDS.items() if name not in DOORS]
    return "\n".join(
        [
            *(f"usage: {program} NAME ...", "", "commands:", *doors, "", "more commands:", *lines),
            *("", f"{program} NAME --help says what a command takes."),
        ]
    )


def _describe_kinds(name: str, kinds: dict[str, str]) -> str:
    return "\n".join(f"  {f'{name} {kind}':<24}{COMMANDS[command]}" for kind, command in kinds.items())


def _called(program: str, name: str, arguments: list[str]) -> tuple[str, str, list[str]]:
    """(How the command is called, its module, the arguments behind); the process ends where there is none."""
    door = DOORS.get(name, name)
    if isinstance(door, str):
        if door in COMMANDS:
            return f"{program} {name}", door, arguments
        close = difflib.get_close_matches(name, [*DOORS, *COMMANDS], n=1)
        _exit(f"no command {name!r}; " + (f"did you mean {close[0]!r}?" if close else f"see {program} --help"))
    if arguments[:1] in (["--help"], ["-h"], ["help"]):
        print(f"usage: {program} {name} {{{','.join(door)}}} ...\n\n{_describe_kinds(name, door)}")
        sys.exit(0)
    if not arguments or arguments[0] not in door:
        said = repr(arguments[0]) if arguments else "nothing"
        _exit(f"{program} {name}: expected {' or '.join(door)}, got {said}; see {program} {name} --help")
    return f"{program} {name} {arguments[0]}", door[arguments[0]], arguments[1:]


def _exit(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def main(argv: list[str] | None = None) -> None:
    """Run the command that ``argv`` (default sys.argv) names with the arguments behind the name; the process ends with
    its exit status, with 2 where there is no such command."""
    script, *arguments = sys.argv if argv is None else argv
    program = "python -m rrt.commands" if script.endswith("__main__.py") else "rrt"
    name = arguments[0] if arguments else "--help"
    if name in ("--help", "-h", "help"):
        print(describe_commands(program), file=sys.stdout if arguments else sys.stderr)
        flush_output()
        sys.exit(0 if arguments else 2)
    called, module, arguments = _called(program, name, arguments[1:])
    sys.argv = [called, *arguments]
    run(module)


def run(module: str) -> None:
    """Run the command of a module of rrt/commands with sys.argv; the process ends with its exit status, and with one
    line when it is told to end, be it while libraries are loaded."""
    # The list of commands does not wait for this.
    from rrt.command_line.parser import ended_in_a_line, missing_extra_in_a_line, run_command

    if module == "search" and "OMP_NUM_THREADS" not in os.environ:
        # Its matrix products are small and many, and the library's threads wait for each other: on a busy machine a
        # query takes 3 s instead of 8 and more, on idle cores the same either way. It is read when NumPy is loaded.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    with ended_in_a_line():
        with missing_extra_in_a_line():
            command = import_module(f"rrt.commands.{module}")
        if hasattr(command, "ex"):
            from rrt.command_line.sacred import run_sacred

            run_sacred(command.ex)
        else:
            run_command(command.main)


if __name__ == "__main__":
    main()
