"""Recipes of training compared: each trained with several seeds in a process of its own, tabulated and drawn."""

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rrt.errors import InputError
from rrt.files.atomic import read_json, write_json
from rrt.files.machine import usable_cores
from rrt.progress import bar, report_progress
from rrt.viz.style import MARKERS, save_figure

PUBLISHED_ACCURACY = 0.68  # of pairs, which the published recipe reached after 600,000 of them (docs/protocol.md 8)
# What tools/tune_fusion.py measures beside a transformer.
BASELINES = ("maxsim", "maxsim_blended", "geometric")
# Stands for the number of a fold in a recipe's settings.
FOLD = "{fold}"
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Recipe:
    """settings: words of experiment.py's command line, those of all recipes first; evaluation: those of the
    measures."""

    name: str
    settings: tuple[str, ...]
    evaluation: tuple[str, ...] = ()

    @property
    def in_folds(self) -> bool:
        """Whether its settings name the folders of a fold."""
        return any(FOLD in word for word in (*self.settings, *self.evaluation))

    def of_fold(self, fold: int | None) -> "Recipe":
        """With the number of a fold where its settings name one."""
        if fold is None:
            return self
        settings, evaluation = (
            tuple(word.replace(FOLD, str(fold)) for word in words) for words in (self.settings, self.evaluation)
        )
        return Recipe(self.name, settings, evaluation)


def read_recipes(path) -> list[Recipe]:
    """The recipes of a file in its order. Raises InputError naming file and line."""
    path = Path(path)
    shared: dict[str, tuple[str, ...]] = {"all": (), "training": (), "evaluation": ()}
    found: dict[str, list[str]] = {}
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: cannot be read ({error}); expected lines 'name: settings of experiment.py'"
        ) from None
    for number, line in enumerate(lines, start=1):
        line = line.partition("#")[0].strip()
        if not line:
            continue
        name, colon, settings = line.partition(":")
        if not colon or not re.fullmatch(r"[\w.-]+", name) or name in found:
            raise InputError(
                f"{path}:{number}: {line!r}; expected 'name: settings', each name (letters, digits, - . _) once"
            )
        if name in shared:
            shared[name] = tuple(settings.split())
        else:
            found[name] = []
            for word in settings.split():
                if word.startswith("@") and word[1:] not in found.keys() - {name}:
                    raise InputError(f"{path}:{number}: {word}: no recipe of that name above")
                found[name] += found[word[1:]] if word.startswith("@") else [word]
    if not found:
        raise InputError(f"{path}: no recipe in it; expected lines 'name: settings of experiment.py'")
    # The data set and its parts are the same for training and measures; the network is as its checkpoint records.
    data = [word for word in shared["all"] if word.startswith("dataset.")]
    evaluation = (*data, "model.RRT", *shared["evaluation"])
    return [
        Recipe(name, (*shared["all"], *shared["training"], *settings), evaluation) for name, settings in found.items()
    ]


def run(*command, log: Path, threads: int | None = None) -> None:
    """A command of this project with its output in ``log``; InputError with its last line when it fails. threads: that
    it computes with, None = as many as it likes."""
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    with open(log, "w", encoding="utf-8") as file:
        status = subprocess.run(
            [sys.executable, *map(str, command)], cwd=ROOT, env=environment, stdout=file, stderr=file
        ).returncode
    if status:
        lines = log.read_text(encoding="utf-8").strip().splitlines() or ["no output"]
        raise InputError(f"{log}: {command[0]} ended with status {status}: {lines[-1].removeprefix('error: ')}")


def train(recipe: Recipe, seed: int, out: Path, threads: int | None = None, fold: int | None = None) -> Path:
    """Train and tune the fusion of one run, as far as that is not done; returns its folder. The baselines of its
    validation set are measured with the first run on it."""
    folder = out / (f"{recipe.name}-{seed}" if fold is None else f"{recipe.name}-{seed}-fold{fold}")
    recipe = recipe.of_fold(fold)
    recorded = folder / "recipe.json"
    wanted = {"settings": list(recipe.settings), "evaluation": list(recipe.evaluation), "seed": seed}
    if recorded.exists() and read_json(recorded) != wanted:
        raise InputError(f"{recorded}: trained by another recipe of this name; give another --out, or delete {folder}")
    write_json(recorded, wanted)
    if not (folder / "fusion.json").exists():
        run(
            "experiment.py",
            "-u",
            "with",
            f"temp_dir={folder}",
            "resume=auto",
            *recipe.settings,
            f"seed={seed}",
            log=folder / "train.log",
            threads=threads,
        )
        run(
            "tools/tune_fusion.py",
            "-u",
            "with",
            f"temp_dir={folder}",
            f"resume={folder / 'best.pt'}",
            f"baselines={not _baselines(out, recipe)}",
            *recipe.evaluation,
            log=folder / "fusion.log",
            threads=threads,
        )
    return folder


def _baselines(out: Path, recipe: Recipe) -> dict:
    """{val_NAME: Medium mAP} as measured with a run of the same evaluation; empty where none has been."""
    for recorded in sorted(out.glob("*/recipe.json")):
        fusion = read_json(recorded.with_name("fusion.json")) or {}
        found = {f"val_{name}": fusion[f"{name}_M_map"] for name in BASELINES if f"{name}_M_map" in fusion}
        if found and _read(recorded)["evaluation"] == list(recipe.evaluation):
            return found
    return {}


def test(recipe: Recipe, folder: Path, threads: int | None = None) -> None:
    """Measure a trained run on the test set, alone and fused."""
    for name, fusion in (("alone", "None"), ("fused", folder / "fusion.json")):
        if not (folder / name / "results.json").exists():
            run(
                "evaluate_revisited.py",
                "-u",
                "with",
                f"temp_dir={folder / name}",
                f"resume={folder / 'best.pt'}",
                f"fusion={fusion}",
                *recipe.evaluation,
                log=folder / f"{name}.log",
                threads=threads,
            )


def compare_recipes(
    recipes: dict[str, Recipe],
    names: list[str],
    seeds: list[int],
    out: Path,
    tested=(),
    jobs: int = 1,
    folds: int | None = None,
) -> dict[str, list[dict]]:
    """{name: figures of its run with each seed} of the named recipes, trained as far as that is not done, the
    ``tested`` ones measured on the test set. jobs: runs at a time, which share the cores. folds: each run is trained as
    often, ``{fold}`` in its settings replaced by 0, 1, .., and its figures are the means. Writes ``out``/recipes.json
    and recipes.png. Raises InputError when a run fails, after those that had begun."""
    for name in names:
        if recipes[name].in_folds != (folds is not None):
            raise InputError(
                f"recipe '{name}': its settings have {'a' if folds is None else 'no'} place for a fold ({FOLD});"
                f" {'give' if folds is None else 'leave out'} --folds"
            )
    if folds is not None and tested:
        raise InputError("--folds: a choice is made by folds, the test set is measured after training on all; not both")
    out = out.resolve()
    threads = max(1, usable_cores() // jobs) if jobs > 1 else None

    def finish(run_):
        name, seed, fold = run_
        report_progress(f"{name}, seed {seed}" + ("" if fold is None else f", fold {fold}"))
        folder = train(recipes[name], seed, out, threads, fold)
        if name in tested:
            test(recipes[name], folder, threads)
        return folder

    # Seed by seed, so that an interrupted comparison has all recipes.
    parts = [None] if folds is None else list(range(folds))
    runs = [(name, seed, fold) for seed in seeds for fold in parts for name in names]
    folders: dict[str, dict[int, list[Path]]] = {}
    pool = ThreadPoolExecutor(jobs)
    try:
        for (name, seed, _), folder in zip(runs, bar(pool.map(finish, runs), "recipes", "run", len(runs))):
            folders.setdefault(name, {}).setdefault(seed, []).append(folder)
    finally:
        # After a failure what has begun is finished, and nothing is begun.
        pool.shutdown(cancel_futures=True)
    baselines = [_baselines(out, recipes[names[0]].of_fold(fold)) for fold in parts]  # evaluated alike, all of them
    found = {
        name: [_mean([figures(folder) | of for folder, of in zip(each, baselines)]) for each in runs.values()]
        for name, runs in folders.items()
    }
    write_json(out / "recipes.json", found)
    draw({name: sum(runs.values(), []) for name, runs in folders.items()}, out / "recipes.png")
    return found


def _mean(found: list[dict]) -> dict:
    """The means of a run's figures over its folds; None where one has none."""
    if len(found) == 1:
        return found[0]
    numbers = {name: [each[name] for each in found] for name in found[0]}
    return {name: None if None in each else round(float(np.mean(each)), 2) for name, each in numbers.items()}


def figures(folder: Path) -> dict:
    """Plain figures of one run, in percent: val (reranker alone), val_fused, val_global and, where measured, of the
    test set; the accuracy of pairs at the end, and after how many pairs it first was the published one (None:
    never)."""
    history = _read(folder / "history.json")
    fusion = _read(folder / "fusion.json")
    found = {"val": fusion["alone_M_map"], "val_fused": fusion["M_map"], "val_global": fusion["global_M_map"]}
    seen, accuracy, planted = curve(folder)
    labelled = seen > planted
    # Of planted pairs it says another thing; a recipe that mixes them in to the end is measured on the mixture.
    found["accuracy"] = round(100 * float(accuracy[labelled][-1]), 1) if labelled.any() else float("nan")
    reached = labelled & (accuracy >= PUBLISHED_ACCURACY)
    found["pairs_to_68"] = int(seen[np.argmax(reached)]) if reached.any() else None
    found["minutes"] = round(sum(stage.get("seconds", 0) for stage in history) / 60, 2)
    for name in ("alone", "fused"):
        path = folder / name / "results.json"
        if path.exists():
            results = _read(path)
            found |= {f"test_{name}": results["RRT"]["M_map"], "test_global": results["global"]["M_map"]}
    return found


def _read(path: Path) -> Any:
    found = read_json(path)
    if found is None:
        raise InputError(f"{path}: no such file; run the recipe again")
    return found


def curve(folder: Path) -> tuple[np.ndarray, np.ndarray, int]:
    """(pairs seen, pair accuracy in training) at the logged steps, and how many of the pairs came before labels: a
    teacher's, whose accuracy is that of their order, and planted ones."""
    from rrt.network.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(folder / "last.pt")
    history = _read(folder / "history.json")
    negatives = checkpoint.settings["negatives"]
    pairs = checkpoint.settings["dataset"]["batch_size"] // (2 + negatives) * (1 + negatives)
    rows = np.array([row[:3] for row in checkpoint.progress["curve"]], float).reshape(-1, 3)
    ends = {stage["epoch"]: stage["step"] for stage in history if stage["epoch"] < 1}
    candidates = checkpoint.settings["training"].get("distil", {}).get("candidates", 1)
    of_lists = checkpoint.settings["dataset"]["batch_size"] // (1 + candidates) * candidates

    def pairs_until(steps):
        taught = np.minimum(steps, ends.get(-1, 0))
        return taught * of_lists + (steps - taught) * pairs

    return pairs_until(rows[:, 0]), rows[:, 2], int(pairs_until(max(ends.values(), default=0)))


def table(found: dict[str, list[dict]]) -> str:
    """Markdown: mean over the seeds and, in brackets, the smallest and the largest."""
    columns = [
        "val",
        "val_fused",
        "val_global",
        *(f"val_{name}" for name in BASELINES),
        "test_alone",
        "test_fused",
        "test_global",
    ]
    columns = [c for c in columns if any(c in run_ for runs in found.values() for run_ in runs)]
    lines = [["recipe", "seeds", *columns, "accuracy", "pairs to 68 %", "minutes"]]
    for name, runs in found.items():
        cells = [_spread([run_[c] for run_ in runs if c in run_]) for c in (*columns, "accuracy")]
        reached = sorted(run_["pairs_to_68"] for run_ in runs if run_["pairs_to_68"] is not None)
        cells.append(
            f"{reached[0]:.0f}–{reached[-1]:.0f}"
            if len(reached) == len(runs)
            else f"{len(reached)} of {len(runs)} seeds"
        )
        lines.append([name, str(len(runs)), *cells, f"{np.mean([run_['minutes'] for run_ in runs]):.1f}"])
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _spread(values) -> str:
    if not values:
        return ""
    return f"{np.mean(values):.2f}" + (f" ({min(values):.2f}–{max(values):.2f})" if len(values) > 1 else "")


def draw(folders: dict[str, list[Path]], path: Path) -> None:
    """Pair accuracy in training against pairs seen: the mean over the seeds, dotted while all pairs are planted, and
    the range over them."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axis = figure.subplots()
    for number, (name, runs) in enumerate(folders.items()):
        curves = [curve(folder) for folder in runs]
        shown = min(len(seen) for seen, _, _ in curves)
        seen, planted = curves[0][0][:shown], curves[0][2]
        accuracy = 100 * np.array([each[:shown] for _, each, _ in curves])
        style = {"color": f"C{number % 10}", "linewidth": 1.3}
        before, after = seen <= planted, seen > planted
        axis.plot(seen[before], accuracy.mean(0)[before], ":", **style)
        marker = {"marker": MARKERS[number % len(MARKERS)], "markersize": 5, "markevery": (number % 4, 4)}
        axis.plot(seen[after], accuracy.mean(0)[after], label=name, **style, **marker)
        axis.fill_between(seen[after], accuracy.min(0)[after], accuracy.max(0)[after], color=style["color"], alpha=0.1)
    axis.axhline(50, color="grey", linewidth=0.8, label="chance")
    axis.axhline(
        100 * PUBLISHED_ACCURACY, color="grey", linewidth=0.8, linestyle="--", label="published recipe at its end"
    )
    axis.set(
        xlabel="pairs seen (dotted: of a teacher and planted ones alone)",
        ylabel="accuracy of the last 100 steps' pairs, %",
    )
    axis.legend(frameon=False, fontsize=8, ncols=2)
    axis.grid(alpha=0.3)
    save_figure(figure, path)
