"""A tiny language model with a shipped tokenizer, behind a server."""

import openai
import pytest

from tools.load_server import tiny_model
from zoo.serving.schema import Limits
from zoo.serving.server import running_server


def client_of(url, **options):
    return openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0, timeout=30, **options)


@pytest.fixture(scope="session")
def tiny():
    return tiny_model()


@pytest.fixture(scope="module")
def server(tiny):
    """A server with room for four at a time."""
    with running_server(tiny, "tiny", Limits(running=4, grace=2.0)) as found:
        yield found


@pytest.fixture
def client(server):
    with client_of(server.url) as found:
        yield found
