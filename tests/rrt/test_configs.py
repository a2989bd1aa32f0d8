"""Settings of every command and method: a number must be one that can be counted or computed with."""

import math

import pytest

from rrt.command_line.parser import CommandParser
from rrt.command_line.settings import described
from rrt.datasets.settings import DatasetSettings
from rrt.errors import InputError, check_count, check_number
from rrt.evaluation.fusion_tuning import TuneSettings, make_grid
from rrt.evaluation.settings import EvaluationSettings
from rrt.network.precision import ScoringSettings
from rrt.network.settings import ModelSettings
from rrt.rerankers.build import all_default_settings, make_method
from rrt.rerankers.fusion import Fusion, read_fusion
from rrt.search.exact import query_expansion
from rrt.training.planted import PlantedSettings
from rrt.training.settings import ExperimentSettings

KINDS = [
    DatasetSettings,
    EvaluationSettings,
    ExperimentSettings,
    ModelSettings,
    PlantedSettings,
    ScoringSettings,
    TuneSettings,
]
NOT_FINITE = [math.nan, math.inf, -math.inf]
ODD = [*NOT_FINITE, -(10**30), 10**400, {}, [], "x"]
# What is too long to be counted, yet a length of descriptors or a number of pixels is not.
LARGE = 10**30


def numeric(default):
    return isinstance(default, int | float) and not isinstance(default, bool)


# {what they are of: (its settings and their defaults, what makes it of given ones)}
SETTINGS = {
    kind.__name__: ({name: default for name, (default, _) in described(kind).items()}, kind) for kind in KINDS
} | {
    method: (settings, lambda method=method, **given: make_method(method, given))
    for method, settings in all_default_settings().items()
    if method != "asmk"  # which needs a file first
}


@pytest.mark.parametrize("owner", SETTINGS)
def test_odd_values_of_a_setting_are_refused_in_one_line(owner):
    defaults, make = SETTINGS[owner]
    for name, default in defaults.items():
        for value in ODD:
            try:
                make(**{name: value})
            except InputError as error:
                assert name in str(error) or isinstance(default, str), error
            else:
                assert not numeric(default) and value != -(10**30), (name, value)
        for value in [True, LARGE][: isinstance(default, int) + 1] if numeric(default) else []:
            with pytest.raises(InputError, match=name):
                make(**{name: value})


@pytest.mark.parametrize("value", [*ODD, True, None, 0, -1, LARGE, 1.5])
def test_a_count_is_an_integer_that_can_be_counted(value):
    with pytest.raises(InputError, match="setting k="):
        check_count("k", value)


@pytest.mark.parametrize("value", [*ODD, True, None, -1])
def test_a_number_is_one_that_float32_can_hold(value):
    for check in (lambda: check_number("alpha", value), lambda: query_expansion([[1.0]], [[1.0]], 1, value)):
        with pytest.raises(InputError, match=r"alpha="):
            check()
    check_number("alpha", 0), check_number("alpha", 0.5)


@pytest.mark.parametrize("value", [*ODD, True, 0, -1])
def test_a_temperature_is_a_number_above_0_wherever_it_comes_from(tmp_path, value):
    with pytest.raises(InputError, match="temperature"):
        Fusion(0.5, value)
    with pytest.raises(InputError, match="temperature"):
        EvaluationSettings(temperature=value)
    for temperatures in (value, [value], [1, value]):
        with pytest.raises(InputError, match="temperature"):
            make_grid([0.5], temperatures)
    with pytest.raises(InputError, match="lambda="):
        Fusion(value or 2)


@pytest.mark.parametrize("number", ["Infinity", "NaN", "1e999", "true", "0", "-1", '"x"', "null"])
def test_a_file_of_a_fusion_holds_such_a_temperature(tmp_path, number):
    (tmp_path / "fusion.json").write_text(f'{{"lambda": 0.5, "temperature": {number}}}')
    with pytest.raises(InputError, match="temperature"):
        read_fusion(tmp_path / "fusion.json")


@pytest.mark.parametrize(
    "option, value",
    [("--power", "nan"), ("--power", "inf"), ("--power", "1e999"), ("--k", "9" * 30), ("--k", "x"), ("--power", "x")],
)
def test_options_of_the_command_line_are_finite_numbers(capsys, option, value):
    parser = CommandParser()
    parser.add_argument("--power", type=float)
    parser.add_argument("--k", type=int)
    with pytest.raises(SystemExit):
        parser.parse_args([option, value])
    assert f"argument {option}: " in capsys.readouterr().err
    assert vars(parser.parse_args(["--power", "1e3", "--k", "-7"])) == {"power": 1000.0, "k": -7}
