"""A plugin of zoo: its names are below conf/, its kinds in schema.py."""
