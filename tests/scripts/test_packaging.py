"""One set of versions everywhere, and an installation that is done once, whole, and says what it lacks."""

import ast
import importlib
import os
import re
import shutil
import subprocess
import sys
import tomllib

import pytest
import yaml
from commands import ROOT
from packaging.requirements import Requirement

import rrt
from rrt.extras import EXTRAS

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pinned():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_conda_and_pip_users_get_the_same_versions():
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    (inside_pip,) = (each["pip"] for each in dependencies if isinstance(each, dict))
    assert inside_pip[-1] == "-e ."
    assert sorted(inside_pip[:-1]) == sorted(pinned())


def test_the_pinned_versions_are_those_the_package_asks_for():
    # faiss-gpu stands for faiss-cpu where there is a GPU; the two do not go together.
    extras = {name: packages for name, packages in PROJECT["optional-dependencies"].items() if name != "gpu"}
    asked = list(map(Requirement, {*PROJECT["dependencies"], *(text for each in extras.values() for text in each)}))
    pins = {requirement.name: requirement for requirement in map(Requirement, pinned())}
    assert sorted(pins) == sorted(requirement.name for requirement in asked)
    for requirement in asked:
        versions = [specifier.version for specifier in pins[requirement.name].specifier if specifier.operator == "=="]
        assert requirement.name == "setuptools" or requirement.specifier.contains(versions[0]), requirement


def test_every_pin_is_exact_but_that_of_setuptools():
    assert [line for line in pinned() if "==" not in line] == ["setuptools<81"]


def test_the_environment_can_run_the_supported_python():
    python = re.search(r"python=(3\.\d+)", (ROOT / "environment.yml").read_text())[1]
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains(f"{python}.5")
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains(
        ".".join(map(str, sys.version_info[:3]))
    )


def test_version_and_extras_are_as_documented():
    assert PROJECT["dynamic"] == ["version"] and PROJECT["license"] == "Apache-2.0"
    assert PROJECT["optional-dependencies"].keys() == EXTRAS.keys()
    assert "Apache License" in (ROOT / "LICENSE").read_text()


def test_every_name_of_the_package_is_what_type_checkers_are_told():
    assert "TYPE_CHECKING" in (source := (ROOT / "rrt" / "__init__.py").read_text())
    (block,) = [node for node in ast.parse(source).body if isinstance(node, ast.If)]
    told = {line.names[0].name: line.module for line in block.body}
    assert sorted([*told, "__version__"]) == sorted(rrt.__all__)
    for name, module in told.items():
        assert getattr(rrt, name) is getattr(importlib.import_module(module), name)


def test_a_name_the_package_does_not_have_is_an_attribute_error():
    assert not hasattr(rrt, "Rerankr")


@pytest.mark.parametrize(
    "path, ignored",
    [
        (".venv/bin/python", True),
        ("data/oxford5k/delg_r50_gldv2.h5", True),
        ("logs/run/1/run.json", True),
        ("rrt_gld_ckpts/r50_gldv2.pt", True),
        ("rrt/__pycache__/x.pyc", True),
        ("some/delg_x.h5.parts/part-00000.h5", True),
        ("data/README.md", False),
        ("logs/.gitkeep", False),
        ("rrt_gld_ckpts/README.md", False),
        ("tests/golden/a.npz", False),
    ],
)
def test_what_runs_leave_is_kept_out_of_the_repository(path, ignored):
    if not shutil.which("git") or not (ROOT / ".git").exists():
        pytest.skip("not a git clone")
    status = subprocess.run(["git", "check-ignore", "-q", "--no-index", path], cwd=ROOT).returncode
    if status == 128:
        pytest.skip("git refuses this folder (another user's)")
    assert (status == 0) == ignored


FAKE_PYTHON = """#!/bin/sh
echo "$*" >> "$CALLS"
case "$*" in
    "--version") echo "Python $VERSION" ;;
    "-c "*) case "$VERSION" in 3.11.*) ;; *) exit 1 ;; esac ;;
    "-m venv --clear .venv") rm -rf .venv && mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
    "-m pip install"*) [ -z "$PIP_FAILS" ] ;;
esac
"""


@pytest.fixture
def install(tmp_path):
    """Runs install.sh in a folder of its own with a made-up Python -> (exit status, pip installations, stderr)."""
    clone, tools = tmp_path / "clone", tmp_path / "bin"
    (clone / "rrt_scripts").mkdir(parents=True)
    tools.mkdir()
    for name in ("rrt_scripts/install.sh", "requirements.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, clone / name)
    for name in ("bash", "sh", "cat", "cp", "mkdir", "mv", "rm", "cksum", "dirname", "flock"):
        if shutil.which(name):
            (tools / name).symlink_to(shutil.which(name))
    (tools / "python3").write_text(FAKE_PYTHON)
    (tools / "python3").chmod(0o755)
    calls = tmp_path / "calls"

    def run(folder=clone, version="3.11.7", pip_fails=""):
        calls.write_text("")
        environment = {"PATH": str(tools), "CALLS": str(calls), "VERSION": version, "PIP_FAILS": pip_fails}
        finished = subprocess.run(
            ["bash", str(folder / "rrt_scripts/install.sh")],
            env=environment,
            text=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
        )
        return finished.returncode, calls.read_text().count("-m pip install"), finished.stderr

    run.clone = clone
    return run


def test_a_second_run_installs_nothing(install):
    assert install() == (0, 2, "")
    assert install() == (0, 0, "")


def test_the_environment_of_another_clone_is_left_alone(install):
    install()
    other = install.clone.with_name("other")
    shutil.copytree(install.clone, other, ignore=shutil.ignore_patterns(".venv*"))
    (other / ".venv").symlink_to(install.clone / ".venv")
    status, calls, error = install(folder=other)
    assert (status, calls) == (1, 0) and "environment of another clone" in error and error.count("\n") == 1
    assert install() == (0, 0, "")  # it is as it was
    (other / ".venv").unlink()
    (other.with_name("disk")).mkdir()
    (other / ".venv").symlink_to(other.with_name("disk"))
    assert install(folder=other)[:2] == (0, 2)
    assert install(folder=other) == (0, 0, "")


@pytest.mark.parametrize("name", ["requirements.txt", "pyproject.toml"])
def test_changed_requirements_are_installed(install, name):
    install()
    with open(install.clone / name, "a") as file:
        file.write("# changed\n")
    assert install() == (0, 2, "")
    assert install() == (0, 0, "")


def test_an_installation_that_failed_is_done_again_from_nothing(install):
    install()
    (install.clone / "requirements.txt").write_text("other")
    assert install(pip_fails="yes")[:2] == (1, 1)
    (install.clone / ".venv" / "half").touch()
    assert install() == (0, 2, "")
    assert not (install.clone / ".venv" / "half").exists()
    assert install() == (0, 0, "")


def test_a_moved_clone_is_installed_again(install, tmp_path):
    install()
    shutil.copytree(install.clone, tmp_path / "moved")
    assert install(tmp_path / "moved") == (0, 2, "")


@pytest.mark.parametrize("version", ["3.10.14", "3.13.1"])
def test_another_python_is_refused_with_one_line(install, version):
    status, installed, error = install(version=version)
    assert (status, installed) == (1, 0) and not (install.clone / ".venv").exists()
    assert error.startswith(f"error: Python 3.11 or 3.12 is needed, python3 is Python {version};")
    assert error.count("\n") == 1


def test_no_python_at_all_is_said_with_one_line(install, tmp_path):
    os.remove(tmp_path / "bin" / "python3")
    status, _, error = install()
    assert status == 1 and "python3 is not there" in error and error.count("\n") == 1


def test_scripts_are_valid_shell():
    for script in [*ROOT.glob("rrt_scripts/*.sh"), ROOT / ".ci" / "run"]:
        assert subprocess.run(["bash", "-n", str(script)]).returncode == 0, script
