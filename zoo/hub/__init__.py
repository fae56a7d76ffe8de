"""Pull, push, verify and serve model folders over the Hugging Face protocol.

``zoo.hub.client``  pull, push and verify (imports huggingface_hub only when one of them runs)
``zoo.hub.server``  a small real hub for one person or a small team: ``serve``, ``running_hub``
``zoo.hub.card``    README.md with YAML front matter: parse, merge, render
``zoo.hub.config``  config.json from a stranger: plain data or nothing
"""
