"""Which ways of training pay: train each recipe with several seeds, tabulate and draw them.

    python tools/compare_recipes.py rrt_scripts/recipes/landmarks.txt --out logs/recipes --seeds 0 1 2
    python tools/compare_recipes.py rrt_scripts/recipes/landmarks.txt --out logs/recipes --seeds 0 1 2 --test curriculum

A recipe file has a line `name: settings of experiment.py` for each recipe (the word @OTHER stands for those of an
earlier recipe), a line `all: settings` for what they share, a line `training: settings` for what experiment.py alone is
told, and a line `evaluation: settings` for what tools/tune_fusion.py and evaluate_revisited.py are told beside the data
set. Recipes are compared on the validation landmarks alone; --test measures the named ones on the test set, once the
choice is made. --folds 4 trains every recipe four times, with {fold} in its settings replaced by 0 to 3 (folders of
tools/train_val_split.py --folds 4), and compares the means. What is finished is not done again, and an interrupted
training goes on where it was. Writes OUT/NAME-SEED/ (or OUT/NAME-SEED-foldN/) for each run, OUT/recipes.json and
OUT/recipes.png (pair accuracy against pairs seen).
"""

from pathlib import Path

from rrt.command_line.parser import CommandParser
from rrt.errors import InputError, check_count
from rrt.files.locks import owned
from rrt.training.recipes import compare_recipes, read_recipes, table


def parse_arguments():
    """The command line's options, read."""
    parser = CommandParser(__doc__)
    parser.add_argument("recipes", help="file of recipes")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="(default 0 1 2)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these recipes alone")
    parser.add_argument("--test", nargs="+", metavar="NAME", default=[], help="measure these on the test set")
    parser.add_argument(
        "--jobs",
        type=int,
        default=1,
        help="runs at a time, which share the cores: small networks train faster side by side (default 1)",
    )
    parser.add_argument("--folds", type=int, help="train and judge every recipe on so many folds of the landmarks")
    return parser.parse_args()


def main():
    """Train, measure and draw the recipes; print their table."""
    args = parse_arguments()
    recipes = {recipe.name: recipe for recipe in read_recipes(args.recipes)}
    for name in (*(args.only or ()), *args.test):
        if name not in recipes:
            raise InputError(f"{args.recipes}: no recipe '{name}'; it has {', '.join(recipes)}")
    check_count("--jobs", args.jobs)
    if args.folds is not None:
        check_count("--folds", args.folds)
    names = args.only or list(recipes)
    with owned(args.out, "comparing there"):
        found = compare_recipes(recipes, names, args.seeds, args.out, args.test, args.jobs, args.folds)
    print(table(found))
    print(f"wrote {args.out.resolve() / 'recipes.json'} and {args.out.resolve() / 'recipes.png'}")
