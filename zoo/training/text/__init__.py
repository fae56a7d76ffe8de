"""Objectives of text: what language models of every family are trained for."""
