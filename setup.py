"""What pyproject.toml cannot say: `commands/`, `configs/` and `docs/` are packages inside `capivara_cli`."""

from setuptools import find_namespace_packages, setup

# Folders of data without Python files count as packages too: setuptools installs files only from packages.
packages = find_namespace_packages(
    include=["capivara_cli*", "commands*", "configs*", "docs"], exclude=["*__pycache__*"]
)
setup(packages=[name if name.startswith("capivara_cli") else f"capivara_cli.{name}" for name in packages])
