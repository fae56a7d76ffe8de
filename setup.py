"""Only the directory mapping: conf/ travels as the package zoo.conf. The rest is in
pyproject.toml."""

from setuptools import find_namespace_packages, setup

setup(
    packages=[
        *find_namespace_packages(include=["zoo", "zoo.*"], exclude=["*.__pycache__"]),
        "zoo.conf",
    ],
    package_dir={"zoo": "zoo", "zoo.conf": "conf"},
)
