"""Runs of Sacred with one-line errors: `python tools/NAME.py [-F logs/NAME] with setting=value`."""

import importlib.util
import logging
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

from docopt import DocoptExit, docopt

from rrt.command_line.output import flush_output
from rrt.command_line.parser import QUIET_HELP, as_called, called_as
from rrt.command_line.plain_settings import SUFFIXES, check_settings, keep_sacred_plain, suggest, wrong_kind
from rrt.command_line.records import DefaultRecord, is_mongo_address, mongo_record
from rrt.command_line.sacred import ROOT, Described, is_first_process
from rrt.errors import InputError, check_choice, describe_error
from rrt.progress import set_quiet

with warnings.catch_warnings():  # sacred 0.8.7 imports pkg_resources, which setuptools<81 has but warns of
    warnings.simplefilter("ignore")
    import sacred.experiment
    from sacred import SETTINGS, Experiment, Ingredient, cli_option
    from sacred.arg_parser import get_config_updates
    from sacred.config import ConfigDict
    from sacred.dependencies import gather_sources_and_dependencies, get_commit_if_possible
    from sacred.utils import (
        ConfigAddedError,
        SacredError,
        apply_backspaces_and_linefeeds,
        get_by_dotted_path,
        iterate_flattened,
        join_paths,
    )

if TYPE_CHECKING:
    from rrt.command_line.sacred import Command

# "fd", the default, starts two `tee` processes that outlive a killed run and reorder standard output and error.
SETTINGS.CAPTURE_MODE = "sys"  # pyright: ignore[reportAttributeAccessIssue]
keep_sacred_plain()


def _two_frames():
    frame = sys._getframe(1)
    return [(frame,), (frame.f_back,)]


# For the globals of its caller Sacred reads the source files of all callers, a third of a command's start.
sacred.experiment.inspect = SimpleNamespace(  # pyright: ignore[reportPrivateImportUsage, reportAttributeAccessIssue]
    stack=_two_frames
)

# What Sacred reports of every run and what nobody can act on; `-l INFO` shows it all.
_NOISE = ("No observers have been added", "Failed after", "Aborted after", "Changed type of config entry")

# Options that say where a run is recorded, or that it is not.
_RECORDS = ("file_storage", "mongo_db", "sql", "s3", "gcs", "tiny_db", "unobserved")

# What Sacred needs for an option and does not bring along.
_NEEDED = {"sql": "sqlalchemy", "s3": "boto3", "gcs": "google.cloud.storage", "tiny_db": "hashfs"}


class _Console(logging.Handler):
    """One line a message, to whatever sys.stderr is at that moment, so that a run's captured output has it too."""

    def emit(self, record):
        # The text of a failed observer is a traceback, whose last line says what happened.
        lines = self.format(record).strip().splitlines()
        print(f"{record.levelname}: {lines[-1] if lines else ''}", file=sys.stderr)


def _logger():
    logger = logging.getLogger("rrt.sacred")
    if not logger.handlers:
        handler = _Console()
        handler.addFilter(_is_news)
        logger.addHandler(handler)
        logger.propagate = False
        logger.setLevel(logging.WARNING)
    return logger


def _is_news(record):
    return _logger().level < logging.WARNING or not record.getMessage().startswith(_NOISE)


def _set_quiet(args, run):
    set_quiet(True)


_set_quiet.__doc__ = QUIET_HELP[0].upper() + QUIET_HELP[1:] + "."
_quiet_option = cli_option("-Q", "--quiet", is_flag=True)(_set_quiet)


class _Experiment(Experiment):
    """Names a command of `rrt NAME` as it was called; Sacred would make a quoted path of it."""

    def get_usage(self, program_name=None):
        program = program_name or sys.argv[0]
        if called_as(program) != program:
            return super().get_usage(program_name)
        usage = super().get_usage(str(ROOT / "PROGRAM"))
        return tuple(text.replace("PROGRAM", program) for text in usage)


def as_experiment(command: "Command") -> Experiment:
    """The sacred.Experiment of a command; sources that its module imports are recorded."""
    # An installed package stands among the sources of all others, which are none of ours.
    base = str(ROOT if (ROOT / "pyproject.toml").exists() else ROOT / "rrt")
    parts = [
        _filled(Ingredient(part.path, _caller_globals=globals(), save_git_info=False), part)
        for part in command.ingredients
    ]
    options = [_quiet_option]
    experiment = _Experiment(command.name, parts, base_dir=base, additional_cli_options=options, save_git_info=False)
    # Sacred took this module for the experiment's main file.
    experiment.doc = command.doc
    found = gather_sources_and_dependencies(command.module, False, base)
    experiment.mainfile, experiment.sources, experiment.dependencies = found
    _add_commit({experiment.mainfile, *experiment.sources})
    # Sacred's classes say None of both.
    experiment.logger = _logger()  # pyright: ignore[reportAttributeAccessIssue]
    experiment.captured_out_filter = apply_backspaces_and_linefeeds  # pyright: ignore[reportAttributeAccessIssue]
    experiment.pre_run_hook(_check_types)
    experiment.main(command.function)
    return _filled(experiment, command)


def _add_commit(sources):
    """The commit of the clone, asked for once: Sacred would ask three programs for every source."""
    try:
        of_clone = get_commit_if_possible(str(ROOT / "pyproject.toml"), True)
    except Exception:  # no git program, or git refuses a folder of another user: the run is worth more than its commit
        return
    for source in sources:
        source.repo, source.commit, source.is_dirty = of_clone


def _filled(sacred_part, part):
    sacred_part.configurations += [_DescribedConfig(described) for described in part.configs()]
    for name, entries in part.named.items():
        sacred_part.add_named_config(name, entries)
    return sacred_part


class _DescribedConfig(ConfigDict):
    """Settings whose meanings `print_config` shows, and of which some follow from others."""

    def __init__(self, described: Described):
        self._plain, self._derived = described.plain(), described.derived()
        super().__init__(self._plain)
        self._meanings = {name: meaning for name, (_, meaning) in described.items() if meaning}

    def __call__(self, fixed=None, preset=None, fallback=None):
        known = (preset or {}) | self._plain | (fixed or {})
        derived = {name: default(known) for name, default in self._derived.items()}
        summary = ConfigDict(self._plain | derived)(fixed, preset, fallback)
        summary.docs.update(self._meanings)
        return summary


def _check_types(_run):
    """InputError for a setting of another kind than its default: a word for a number, a number for a dict."""
    for name, (expected, found) in sorted(_run.config_modifications.typechanged.items()):
        if {expected, found} != {int, float}:
            raise wrong_kind(name, get_by_dotted_path(_run.config, name), expected)


def run_recorded(experiment, argv):
    """Run the experiment's command line; see ``rrt.command_line.sacred.run_sacred``."""
    _check_command_line(experiment, argv)
    run, observers = experiment.run, list(experiment.observers)

    def run_or_exit(*args, options, **kwargs):
        if not is_first_process():
            options = options | {f"--{name}": None for name in _RECORDS} | {"--unobserved": True}
        if options["--mongo_db"]:
            kwargs["meta_info"] = (kwargs.get("meta_info") or {}) | {"options": dict(options)}
            record = mongo_record(options["--mongo_db"], bool(options["--file_storage"]), options["--id"] is not None)
            experiment.observers.append(record)
            options = options | {"--mongo_db": None}  # Sacred's own way to MongoDB ends a run where there is none
        elif not any(options.get(f"--{name}") for name in _RECORDS):
            experiment.observers.append(DefaultRecord())
        try:
            finished = run(*args, options=options, **kwargs)
        except (InputError, OSError, SacredError) as error:
            if options["--debug"] or options["--pdb"]:
                raise
            flush_output(error)
            _exit(_unknown_setting(experiment, error) if isinstance(error, ConfigAddedError) else _describe(error))
        for observer in finished.observers:
            if getattr(observer, "dir", None):
                print(f"run recorded in {observer.dir}")
        return finished

    experiment.run = run_or_exit
    try:
        experiment.run_commandline(argv)
    finally:
        del experiment.run  # the method of the class again
        experiment.observers[:] = observers


def _exit(message, status=1):
    print(as_called(f"error: {message}"), file=sys.stderr)
    sys.exit(status)


def _check_command_line(experiment, argv):
    """Exit with one line for a command line that Sacred would answer with its usage text or a traceback."""
    try:
        args = docopt(experiment.get_usage(argv[0])[2], argv[1:], default_help=False)
    except DocoptExit:
        _exit(f"cannot read the arguments {' '.join(argv[1:])!r}; see {called_as(argv[0])} --help")
    commands = [name for name, _ in experiment.gather_commands()]
    if args["COMMAND"] and args["COMMAND"] not in commands:
        hint = f"settings come after the word with: {argv[0]} with {args['COMMAND']}" if "=" in args["COMMAND"] else ""
        _exit(f"unknown command {args['COMMAND']!r}; {hint or suggest(args['COMMAND'], commands)}")
    if args["--help"] or args["help"]:
        return
    try:
        _check_settings_given(experiment, args["UPDATE"])
        _check_options(args)
    except (InputError, OSError) as error:
        _exit(describe_error(error))


def _check_settings_given(experiment, words):
    try:
        updates, names = get_config_updates(words)
    except TypeError:  # a=1 a.b=2
        raise InputError(f"{' '.join(words)!r}: a setting is given both a value and settings of its own") from None
    check_settings(updates, "the command line")
    known = [name for name, _ in experiment.gather_named_configs()]
    for name in names:
        is_there = Path(name).is_file()
        if name in known and Path(name).exists():  # which Sacred would take for settings
            raise InputError(f"{name}: is a named configuration and a file of this folder, too; start elsewhere")
        if is_there and not name.endswith(SUFFIXES):
            raise InputError(f"{name}: settings are read from files of plain {', '.join(SUFFIXES)} alone")
        if not is_there and name not in known:
            missing = f"{name}: no such file of settings" if name.endswith(SUFFIXES) else ""
            unknown = f"unknown named configuration {name!r} (a setting needs name=value); {suggest(name, known)}"
            raise InputError(missing or unknown)


def _check_options(args):
    if args["--mongo_db"] and not is_mongo_address(args["--mongo_db"]):
        raise InputError(f"-m {args['--mongo_db']!r}: expected [HOST:PORT:]DB, for example localhost:27017:rrt")
    if args["--s3"] and not args["--s3"].startswith("s3://"):
        raise InputError(f"-S {args['--s3']!r}: expected s3://BUCKET/FOLDER")
    for name, package in _NEEDED.items():
        if args.get(f"--{name}") and not _is_installed(package):
            raise InputError(f"--{name} needs the package {package}, which is not installed; -F DIR records in files")
    for name in ("beat-interval", "priority"):
        if args[f"--{name}"]:
            _check_is_number(f"--{name}", args[f"--{name}"])
    level = args["--loglevel"]
    if level and not level.isdecimal() and level not in logging.getLevelNamesMapping():
        raise InputError(f"--loglevel={level}: choose one of {', '.join(logging.getLevelNamesMapping())}, or 0 to 50")
    if args["--capture"]:
        check_choice("--capture", args["--capture"], ("no", "sys", "fd"))
    if args["--id"] and Path(args["--id"]).name != args["--id"]:
        raise InputError(f"--id={args['--id']}: the number or name of a record, not a path")
    if args["--file_storage"]:
        Path(args["--file_storage"]).mkdir(parents=True, exist_ok=True)


def _is_installed(package: str) -> bool:
    """Whether a package can be imported; its parents are."""
    try:
        return importlib.util.find_spec(package) is not None
    except ImportError:
        return False


def _check_is_number(option, text):
    try:
        float(text)
    except ValueError:
        raise InputError(f"{option}={text}: expected a number") from None


def _describe(error):
    return " ".join(str(error).split()) if isinstance(error, SacredError) else describe_error(error)


def _unknown_setting(experiment, error):
    wrong = str(next(iter(error.__conflicting_configs__)))
    paths = [ingredient.path for ingredient, _ in experiment.traverse_ingredients() if ingredient is not experiment]
    owner = next((path for path in paths if wrong == path or wrong.startswith(path + ".")), "")
    # The settings of that experiment or ingredient, the wrong one already among them.
    known = [join_paths(owner, name) for name, _ in iterate_flattened(error.__config__) if name]
    return f"unknown setting {wrong!r}; {suggest(wrong, [name for name in known if name != wrong])}"
