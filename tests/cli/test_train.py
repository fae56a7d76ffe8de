"""zoo train, sweep and eval: Hydra's command line, and one sentence for what is wrong."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from zoo.cli import main

SMALL = [
    "experiment=digits_vit",
    "model.backbone.depth=1",
    "model.backbone.width=16",
    "trainer.steps=2",
    "trainer.batch=8",
    "trainer.eval_every=null",
]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def cfg(capsys, *words):
    assert main(["train", *words, "--cfg", "job"]) == 0
    return yaml.safe_load(capsys.readouterr().out)


# -- words that are right --------------------------------------------------------------------------


def test_what_would_run(capsys):
    shown = cfg(capsys, "model=vit-digits", "optim=lion", "+seed=3", "++trainer.clip=2")
    assert shown["kind"] == "train" and shown["optim"]["algorithm"] == "lion"
    assert shown["seed"] == 3 and shown["trainer"]["clip"] == 2


def test_keys_that_no_file_holds_need_no_plus(capsys):
    shown = cfg(
        capsys, "model=vit-digits", "model.backbone.dropout=0.1", "trainer.steps=5", "seed=2"
    )
    assert shown["model"]["backbone"]["dropout"] == 0.1 and shown["seed"] == 2


def test_a_key_of_a_part_that_is_a_bare_name_opens_it(capsys):
    words = ["model=vit-digits", "model.backbone.position=rope", "model.backbone.position.theta=5"]
    assert cfg(capsys, *words)["model"]["backbone"]["position"] == {"name": "rope", "theta": 5}


def test_a_key_goes_back_to_its_default(capsys):
    words = ["model=vit-digits", "trainer=debug"]
    assert cfg(capsys, *words)["trainer"]["log_every"] == 1
    assert "log_every" not in cfg(capsys, *words, "~trainer.log_every")["trainer"]


def test_interpolation_between_keys(capsys):
    from zoo.registry import read_node

    words = ["model=vit-digits", "trainer.steps=40", "schedule.warmup=${trainer.steps}"]
    assert main(["train", *words, "--cfg", "job", "--resolve"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["schedule"]["warmup"] == 40
    assert read_node("schedule", "cosine").warmup == 0


def test_help_names_every_choice(capsys):
    assert main(["train", "--help"]) == 0
    text = capsys.readouterr().out
    for line in (
        "data: codes, colour-digits, dig",
        "experiment: bert_answers, bert_",
        "zoo sweep",
    ):
        assert line in text
    assert main(["eval", "--help"]) == 0
    assert "zoo eval runs/7" in capsys.readouterr().out


def test_info_and_the_folders_of_names(capsys, tmp_path, monkeypatch):
    node = tmp_path / "mine" / "optim" / "quick.yaml"
    node.parent.mkdir(parents=True)
    node.write_text("kind: adamw\nlr: 0.5\n")
    found = cfg(capsys, "model=vit-digits", "optim=quick", "--config-dir", str(tmp_path / "mine"))
    assert found["optim"]["lr"] == 0.5 and "ZOO_CONF_PATH" not in os.environ
    monkeypatch.setenv("ZOO_CONF_PATH", str(tmp_path / "mine"))
    assert cfg(capsys, "model=vit-digits", "optim=quick")["optim"] == {"kind": "adamw", "lr": 0.5}
    assert main(["train", "--info", "searchpath"]) == 0
    assert str(tmp_path / "mine") in capsys.readouterr().out


def test_names_that_a_plugin_makes_up(capsys, monkeypatch):
    from zoo.registry import plugins as registry
    from zoo.training import compose

    class Plugin(registry.Plugin):
        def made_up_node(self, group, name):
            return {"kind": "vit", "classes": 7} if (group, name) == ("model", "toy/x") else None

    found = {"toy": Plugin("toy", "zoo_toy", "zoo-toy 1")}
    monkeypatch.setattr(compose, "plugins", lambda: found)
    assert cfg(capsys, "model=toy/x")["model"] == {"kind": "vit", "classes": 7}


def test_composing_imports_no_torch():
    code = (
        "import sys; from zoo.cli import main\n"
        "assert main(['train', 'experiment=digits_vit', '--cfg', 'job']) == 0\n"
        "assert not {'torch', 'timm', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


# -- words that are wrong --------------------------------------------------------------------------

WRONG = {
    "experiment=digits_vti": "Unknown experiment 'digits_vti'. Did you mean 'digits_vit'?",
    "model=vit-digit": "Unknown model 'vit-digit'. Did you mean 'vit-digits'?",
    "model=vit-digits.nope": "a model to train is a node, and its weights are a key of their own",
    "data=digit": "Unknown data 'digit'. Did you mean 'digits'?",
    "modle=x": "modle: 'train' has no such key (given: 'x'). Did you mean 'model'",
    "model.bakbone.depth=3": "model.bakbone: 'vit' has no such key",
    "model.backbone.dpeth=3": "Did you mean 'depth'? It is a whole number.",
    "+model.backbone.dpeth=3": "Did you mean 'depth'? It is a whole number.",
    "++trainer.stepz=3": "trainer.stepz: 'loop' has no such key (given: 3). Did you mean 'steps'?",
    "model.backbone.depth=abc": "model.backbone.depth: expected a whole number, got 'abc'",
    "optim.lr=-1": "optim.lr: must be more than 0.0, got -1",
    "trainer.precision=fp61": "trainer.precision: must be one of fp32, bf16, got 'fp61'",
    "model.backbone.position=ropee": "Unknown position 'ropee'. Did you mean 'rope'?",
    "model.backbone.position.thta=5": "has no such key",
    "weights=augreg": "weights: the model has no weights 'augreg'",
    "weights=foo:bar": "unknown scheme 'foo'",
    "norm=rms": "norm: this is no choice of the experiment; set a part where it stands",
    "+norm=rms": "norm: 'train' has no such key",
    "optim.lr=1,2": "optim.lr=1,2: several values make a sweep, which is zoo sweep (or -m)",
    "a=[1": "'a=[1' cannot be read: ",
    "~trainer.clip": "~trainer.clip: no node here sets trainer.clip.",
    "~modell": "~modell: no node here sets modell. Did you mean 'model'?",
    "seed=${optim.lrr}": "optim.lrr",
    "resume=nowhere": "resume: nowhere holds no run (no experiment.json).",
    "--multirunn": "zoo train does not understand '--multirunn'. Did you mean '--multirun'?",
    "run.dri=x": "run.dri: 'RunConfig' has no such key (given: 'x'). Did you mean 'dir'?",
    "trainable=[]": "trainable: with no pattern nothing would learn",
    "trainer.accumulate=7": "samples do not divide into 7 micro batches",
    "data.augment.shift=2": "data.augment.shift: must be at most 1.0, got 2",
}


@pytest.mark.parametrize("word", WRONG)
def test_a_wrong_word_is_one_sentence(capsys, word):
    assert main(["train", "experiment=digits_vit", word]) == 2
    out, err = capsys.readouterr()
    assert WRONG[word] in err
    assert err.startswith("zoo: ") and err.count("\n") == 1 and len(err) < 420
    assert out == "" and not Path("runs").exists()


def test_nothing_to_train(capsys):
    assert main(["train"]) == 2
    assert (
        "nothing says what to train; give model=NAME or experiment=NAME" in capsys.readouterr().err
    )


# -- running ---------------------------------------------------------------------------------------


def test_train_resume_eval(capsys):
    assert main(["train", *SMALL, "trainer.log_every=1"]) == 0
    assert "runs/1  " in capsys.readouterr().out
    assert main(["train", "resume=runs/1", "trainer.steps=4"]) == 0
    shown = capsys.readouterr().out
    assert "step 3/4" in shown and "step 2/4" not in shown
    assert main(["train", "resume=runs/1", "optim.lr=1"]) == 2
    assert "runs/1 is a run with optim.lr=" in capsys.readouterr().err
    assert main(["train", "resume=runs/1", "optim=lion"]) == 2
    assert "goes on with that run's own nodes" in capsys.readouterr().err
    assert main(["eval", "runs/1", "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)
    result = json.loads(Path("runs/1/result.json").read_text())
    assert measured == {
        "of": "runs/1",
        **{k: pytest.approx(v) for k, v in result["metrics"].items()},
    }
    assert json.loads(Path("runs/1/experiment.json").read_text())["config"]["trainer"]["steps"] == 4


def test_eval_says_what_is_missing(capsys):
    assert main(["eval"]) == 2
    assert "of: nothing says what to measure, as in zoo eval runs/7." in capsys.readouterr().err
    assert main(["eval", "vit-digit", "data=digits"]) == 2
    assert "Unknown model 'vit-digit'. Did you mean 'vit-digits'?" in capsys.readouterr().err
    assert main(["eval", "vit-digits"]) == 2
    assert "add data=NAME" in capsys.readouterr().err
    assert main(["eval", "vit-digits", "dat=digits"]) == 2
    assert "dat: 'eval' has no such key" in capsys.readouterr().err


def test_a_sweep_runs_every_combination(capsys):
    assert main(["sweep", *SMALL, "seed=0,1", "hydra.sweep.dir=grid"]) == 0
    rows = json.loads(Path("grid/summary.json").read_text())
    assert [row["run"] for row in rows] == ["grid/0", "grid/1"]
    assert [row["overrides"][-1] for row in rows] == ["seed=0", "seed=1"]
    assert rows[0]["loss"] != rows[1]["loss"]
    assert capsys.readouterr().out.count("grid/1\tseed=1\t") == 1


def test_a_job_that_cannot_run_does_not_end_the_sweep(capsys):
    words = ["data=image-folder", "data.folder=nowhere,elsewhere", "hydra.sweep.dir=grid"]
    assert main(["sweep", *SMALL, *words]) == 2
    rows = json.loads(Path("grid/summary.json").read_text())
    assert [row["error"] for row in rows] == [
        "data.folder: nowhere is not a folder.",
        "data.folder: elsewhere is not a folder.",
    ]
    assert "Traceback" not in capsys.readouterr().err


def test_a_sweep_with_a_wrong_value_starts_no_job(capsys):
    assert main(["train", "-m", *SMALL, "optim.lr=1e-3,-1", "hydra.sweep.dir=grid"]) == 2
    assert "optim.lr: must be more than 0.0, got -1" in capsys.readouterr().err
    assert not Path("grid").exists()


def test_the_processes_of_a_sweep_agree_on_its_folder(capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["sweep", *SMALL, "seed=0,1"]) == 2
    assert "hydra.sweep.dir: the processes of a sweep need the same" in capsys.readouterr().err


def test_jobs_of_a_sweep_at_a_time(capsys, monkeypatch):
    assert main(["sweep", "--jobs", "none", *SMALL]) == 2
    assert "--jobs takes how many jobs run at a time, got 'none'" in capsys.readouterr().err
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["sweep", "--jobs", "2", *SMALL]) == 2
    assert "pip install 'multimodal-zoo[train]'" in capsys.readouterr().err


def test_two_processes_under_torchrun(tmp_path):
    """The command line as it is typed: both processes compose, the main one decides where."""
    pytest.importorskip("torch")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", "-m", "zoo", "train", *SMALL]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [p.name for p in (tmp_path / "runs").iterdir()] == ["1"]
    assert done.stdout.count("step 2/2  eval") == 1 and done.stdout.count("runs/1  ") == 1


def test_hydras_own_loader_comes_back(capsys):
    import hydra._internal.hydra as app

    plain = app.ConfigLoaderImpl
    cfg(capsys, "model=vit-digits")
    assert app.ConfigLoaderImpl is plain
