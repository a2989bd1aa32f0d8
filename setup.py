"""What pyproject.toml cannot say: a wheel holds the shipped models inside the package, as rrt/shipped/."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["rrt", "rrt.*", "delg_extract", "delg_extract.*"]), "rrt.shipped"],
    package_dir={"rrt.shipped": "rrt_gld_ckpts"},
)
