"""Every error that a user can cause. One short sentence each: what was wrong, the nearest right
name, what to do."""

from __future__ import annotations

__all__ = [
    "ConfigError",
    "DataError",
    "HubError",
    "PluginError",
    "TrainingError",
    "UnknownName",
    "WeightsError",
    "ZooError",
]


class ZooError(ValueError):
    """Something the user can put right; the CLI prints its text and no traceback."""


class UnknownName(ZooError):
    """A name that nothing installed here answers to."""


class ConfigError(ZooError):
    """A configuration key or value that its schema refuses."""


class WeightsError(ZooError):
    """A weights file that cannot be read, or does not fit its model."""


class HubError(ZooError):
    """A hub that refused, failed, or sent something that must not be used."""


class DataError(ZooError):
    """An input (picture, sound, text, data set) that cannot be used."""


class PluginError(ZooError):
    """An installed plugin that is broken or clashes with another one."""


class TrainingError(ZooError):
    """A run that cannot start, continue or be resumed as asked."""
