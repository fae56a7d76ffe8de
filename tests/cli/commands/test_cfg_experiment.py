"""zoo cfg experiment NAME: all of what zoo train would run."""

import zoo


def test_cfg_of_an_experiment(zoo_command, zoo_json):
    mapping = zoo_json("cfg", "experiment", "digits_vit", "optim.lr=0.5", "model.backbone.depth=2")
    assert mapping["optim"]["lr"] == 0.5 and mapping["model"]["backbone"]["depth"] == 2
    assert mapping["model"]["backbone"]["width"] == zoo.config("vit-digits").backbone.width
    assert zoo_json("cfg", "experiment=digits_vit")["data"]["kind"] == "digits"
    code, _, err = zoo_command("cfg", "experiment", "digits_vti")
    assert code == 2 and "Did you mean 'digits_vit'" in err
    code, _, err = zoo_command("cfg", "experiment", "digits_vit", "optim.lrr=1")
    assert code == 2 and "lrr" in err
