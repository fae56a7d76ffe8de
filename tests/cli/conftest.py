import json

import pytest


@pytest.fixture
def zoo_command(capsys):
    """Runs a command line in this process; gives (exit code, stdout, stderr)."""
    from zoo.cli import main

    def run(*words):
        code = main([str(word) for word in words])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def zoo_json(zoo_command):
    """Runs a command line with --json; gives what it printed, parsed."""

    def run(*words, code=0):
        found, out, err = zoo_command(*words, "--json")
        assert found == code, err
        return json.loads(out)

    return run


@pytest.fixture
def tiny(tmp_path):
    """A folder with a tiny classifier of new weights."""
    import zoo

    zoo.save(zoo.create("vit-digits", "backbone.depth=1", seed=0), tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.fixture
def picture(tmp_path):
    from PIL import Image

    Image.linear_gradient("L").save(tmp_path / "scan.png")
    return tmp_path / "scan.png"
