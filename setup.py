"""Only the directory mapping: the names in conf/ travel as the package zoo.conf. Everything else is in pyproject.toml."""

from setuptools import find_namespace_packages, setup

setup(
    packages=[*find_namespace_packages(include=["zoo", "zoo.*"]), "zoo.conf"],
    package_dir={"zoo": "zoo", "zoo.conf": "conf"},
)
