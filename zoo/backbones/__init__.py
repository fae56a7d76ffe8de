"""Stacks of blocks. One config expresses every family; nothing here knows which family it
serves."""
