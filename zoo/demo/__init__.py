"""`zoo demo`: every shipped model at work on data that ships too, printed and as a gallery.

A file here is a modality, found by its name. It holds

    TITLE = "Pictures"
    def shows(config) -> bool                     whether it can show a model with this config
    def show(name, model, gallery) -> list[str]   use the model: `gallery.say` what a person wants
                                                  to know, return blocks made by zoo.demo.page
"""
