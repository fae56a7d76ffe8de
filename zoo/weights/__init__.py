"""Weights: safetensors in and out, reversible maps to public formats, loading into a module.

| to                                             | use                                        |
|------------------------------------------------|--------------------------------------------|
| read or write a file                           | `files.open_weights`, `files.save_weights` |
| say how foreign names and layouts become ours  | `map.WeightMap`                            |
| put tensors into a module built on meta        | `load.load_into`                           |
| find the format that reads a public config     | `formats.format_for`                       |
"""
