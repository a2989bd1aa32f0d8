"""Probabilities that people can read: fits how the scores of a reranking method become the probability that two images
show the same object, on a search whose answers are known, and says how well that holds (docs/calibration.md).

    python tools/calibrate.py --store data/landmarks_val/delg_lite0.h5 --query_list data/landmarks_val/test_query.txt \\
        --gallery_list data/landmarks_val/test_gallery.txt --ground_truth data/landmarks_val/gnd_landmarks_val.pkl \\
        --method "maxsim[weight=0.2,symmetric=True,local=100]" --output logs/calibration
    python tools/calibrate.py ... --method rrt --resume logs/NAME/best.pt --into_checkpoint --output logs/calibration
    python tools/calibrate.py ... --measure logs/calibration/calibration.json --output logs/calibration_test
    python tools/calibrate.py ... --groups logs/calibration/calibration.json --output logs/groups

Several searches are joined where --store, --query_list, --gallery_list and --ground_truth are given several times; the
calibration is said to be of the last store's descriptors. Every query makes pairs with its first candidates, as a user
of a search sees them; figures are of pairs whose landmark (label of the query) had no part in the fit. Writes
calibration.json and reliability.png into --output; --measure fits nothing and judges an earlier calibration on this
set; --groups chooses from which probability on results are called same and maybe, and writes calibration.json with
these thresholds and how often they are right: on the queries as they are and as if the gallery had nothing right for
them, and every gallery image that is right for a query is a query, too. With a fused rrt the weight stands in the
method: "rrt[weight=0.4,temperature=0.5]".
"""

from dataclasses import replace
from pathlib import Path

from rrt.calibration import GROUPS, Calibration, fitting, read_calibration, write_calibration
from rrt.command_line.parser import CommandParser
from rrt.errors import InputError, check_count
from rrt.evaluation.calibrating import (
    GLOBAL,
    KINDS,
    ScoredPairs,
    across,
    belonging,
    calibrate,
    draw_reliability,
    figures_of,
    joined,
    score_pairs,
)
from rrt.evaluation.grouping import Answers, answers_of, every_right_image, group_figures, grouped, told
from rrt.evaluation.grouping import joined as joined_answers
from rrt.files.atomic import all_or_none, write_json
from rrt.formats.revisited import load_revisited_set
from rrt.rerankers.base import RerankMethod
from rrt.rerankers.build import configure
from rrt.rerankers.chain import stages_of
from rrt.search.whitening import load_whitening
from rrt.store.store import Store

# {option: meaning}; as many of each.
_SEARCH = {
    "store": "descriptor store (.h5, or a folder of its parts) with the images of both lists",
    "query_list": "image list of the queries",
    "gallery_list": "image list of the gallery",
    "ground_truth": "Revisited or classic ground truth (.pkl, .json, .mat)",
}


def parser() -> CommandParser:
    """The command line's options."""
    p = CommandParser(__doc__)
    for name, meaning in _SEARCH.items():
        p.add_argument(f"--{name}", action="append", required=True, help=meaning)
    p.add_argument(
        "--method",
        default="maxsim",
        help="a pairwise method, or a chain that ends in one (default maxsim); none: global search, its cosines",
    )
    p.add_argument("--resume", metavar="CHECKPOINT", help="network of rrt")
    p.add_argument("--max_local", type=int, help="local descriptors that rrt reads (default: as the checkpoint has it)")
    p.add_argument("--num_rerank", type=int, help="candidates of a query (default: the method's own number)")
    p.add_argument("--whitening", metavar="FILE", help="of global descriptors, an .npz of tools/learn_whitening.py")
    p.add_argument("--kind", choices=("auto", *KINDS), default="auto", help="auto: the better one of held-out pairs")
    p.add_argument("--into_checkpoint", action="store_true", help="write the calibration into the checkpoint, too")
    known = p.add_mutually_exclusive_group()
    known.add_argument("--measure", metavar="FILE", help="judge this calibration, or that of a checkpoint (.pt)")
    known.add_argument("--groups", metavar="FILE", help="choose the groups of this calibration, or of a checkpoint's")
    p.add_argument(
        "--another_model", action="store_true", help="judge it although it is of another model's descriptors"
    )
    p.add_argument("--output", type=Path, default=Path("logs/calibration"), help="folder (default %(default)s)")
    p.add_argument("--cpu", action="store_true", help="leave a GPU alone")
    return p


def main() -> None:
    """Fit or measure, and print the figures."""
    args = parser().parse_args()
    if args.into_checkpoint and (not args.resume or args.measure):
        raise InputError("--into_checkpoint: for a calibration that is fitted on scores of --resume CHECKPOINT")
    if args.another_model and not args.measure:
        raise InputError("--another_model: for --measure FILE")
    if args.num_rerank is not None:
        check_count("num_rerank", args.num_rerank)
    searches = list(zip(*(getattr(args, name) for name in _SEARCH)))
    if len({len(getattr(args, name)) for name in _SEARCH}) > 1:
        raise InputError(f"--{', --'.join(_SEARCH)}: give as many of each, those of a search together")
    sets = [load_revisited_set(*lists) for _, *lists in searches]
    method = _method(args)
    whitening = load_whitening(args.whitening) if args.whitening else None
    with Store(args.store[-1]) as store:
        source = {
            "ground_truth": [Path(name).name for name in args.ground_truth],
            "candidates": args.num_rerank or (stages_of(method)[-1][1] if method else GLOBAL),
        }
        scored = belonging(Calibration("platt"), method, store, whitening, **source)
    file = args.measure or args.groups
    known = _known(file, scored, args.another_model) if file else None
    asked = answers_of if args.groups or (known and known.thresholds) else score_pairs
    parts = []
    for images, (path, *_) in zip(sets, searches):
        with Store(path) as store:
            if args.groups:
                images = every_right_image(images)
            parts.append(asked(images, store, method, args.num_rerank, whitening))
    if known is None:
        _fitted(args, scored, parts)
    elif args.groups:
        _grouped(args, grouped(known, joined_answers(parts)))
    else:
        _measured(args, known, joined_answers(parts) if known.thresholds else joined(parts))


def _method(args) -> RerankMethod | None:
    if args.method == "none":
        return None
    configured = configure(args.method, {}, args.resume, cpu=args.cpu)
    assert configured is not None
    if "rrt" not in configured.names:
        return configured.method()
    from rrt.devices import choose_device
    from rrt.network.reranker import Reranker
    from rrt.rerankers.transformer import Transformer

    device = choose_device("cpu" if args.cpu else None)
    return configured.method(Transformer(Reranker.from_checkpoint(args.resume, device, args.max_local)))


def _known(path: str, scored: Calibration, another_model: bool) -> Calibration:
    # Without descriptors neither these nor the whitening are compared.
    own = scored.method, None if another_model else scored.descriptors, scored.whitening
    if path.endswith(".pt"):
        from rrt.network.reranker import Reranker

        found = fitting(Reranker.from_checkpoint(path, "cpu").calibrations, *own)
        if found is None:
            raise InputError(f"{path}: holds no calibration of such scores; make one with --into_checkpoint")
        return found
    found = read_calibration(path)
    if difference := found.difference(*own):
        raise InputError(f"{path}: {difference}; measure it on scores of the same kind")
    return found


def _measured(args, known: Calibration, measured: ScoredPairs | Answers) -> None:
    pairs = measured.known if isinstance(measured, Answers) else measured
    probabilities = known(pairs.scores)
    figures = {"pairs": len(pairs.right), "right": int(pairs.right.sum())} | figures_of(probabilities, pairs.right)
    groups = group_figures(known, measured) if isinstance(measured, Answers) else {}
    with all_or_none():
        write_json(args.output / "measured.json", figures | ({"groups": groups} if groups else {}))
        draw_reliability(args.output / "reliability.png", {known.kind: probabilities}, pairs.right)
    _tell(figures)
    if groups:
        print(told(groups, "groups"))
    print(f"wrote {args.output / 'measured.json'} and reliability.png")


def _fitted(args, scored: Calibration, parts: list[ScoredPairs]) -> None:
    pairs = joined(parts)
    calibration, probabilities = calibrate(pairs, args.kind)
    belongs = {name: getattr(scored, name) for name in ("method", "descriptors", "whitening")}
    calibration = replace(calibration, **belongs, about=calibration.about | scored.about)
    if len(parts) > 1:
        calibration.about["ece_of_a_search_by_the_others"] = across(parts, calibration.kind)
    with all_or_none():
        write_calibration(args.output / "calibration.json", calibration)
        draw_reliability(args.output / "reliability.png", {f"{calibration.kind}, held out": probabilities}, pairs.right)
    _tell(calibration.about | calibration.about["held_out"])
    if len(parts) > 1:
        errors = ", ".join(f"{error:.3f}" for error in calibration.about["ece_of_a_search_by_the_others"])
        print(f"expected calibration error of each search when the others fitted: {errors}")
    print(f"{calibration.kind}: wrote {args.output / 'calibration.json'} and reliability.png")
    _into_checkpoint(args, calibration)


def _into_checkpoint(args, calibration: Calibration) -> None:
    if args.into_checkpoint:
        from rrt.network.checkpoint import attach_calibration

        print(f"wrote it into {attach_calibration(args.resume, calibration)}")


def _grouped(args, calibration: Calibration) -> None:
    for name, figures in calibration.about["groups"].items():
        print(told(figures, name.replace("_", " ")))
    same, maybe = (calibration.thresholds[name] for name in GROUPS[:2])
    written = write_calibration(args.output / "calibration.json", calibration)
    print(f"same from {same:.4f}, maybe from {maybe:.4f}: wrote {written}")
    _into_checkpoint(args, calibration)


def _tell(figures: dict) -> None:
    print(
        f"{figures['pairs']} pairs, {100 * figures['right'] / figures['pairs']:.1f} % of them right; expected"
        f" calibration error {figures['ece_equal_mass']:.3f} (15 bins of equal mass), {figures['ece_equal_width']:.3f}"
        f" (of equal width); Brier score {figures['brier']:.3f}"
    )
