"""What pyproject.toml cannot say: `commands/` and `configs/` of the repository are packages inside `capivara_cli`."""

from setuptools import find_packages, setup

setup(
    packages=find_packages(include=["capivara_cli*"])
    + [f"capivara_cli.{name}" for name in find_packages(include=["commands*", "configs*"])]
)
