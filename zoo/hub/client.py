"""Pull, push and verify model folders on anything that speaks the Hugging Face protocol.

The hub is HF_ENDPOINT, the token HF_TOKEN; neither is ever printed or written. Importing this costs
nothing: `huggingface_hub` comes in when something is asked of a hub.
"""

from __future__ import annotations

from zoo.hub.folder import PUSH_FILES
from zoo.hub.pull import PULL_FILES, pull
from zoo.hub.push import PushResult, push
from zoo.hub.remote import cache_root, endpoint, is_offline, shown_endpoint
from zoo.hub.verify import FileState, Report, verify

__all__ = [
    "PULL_FILES",
    "PUSH_FILES",
    "FileState",
    "PushResult",
    "Report",
    "cache_root",
    "endpoint",
    "is_offline",
    "pull",
    "push",
    "shown_endpoint",
    "verify",
]
