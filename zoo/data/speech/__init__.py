"""Spoken digits and commands, made by a synthesiser in this process's children, and a sample of
them that ships."""
