"""`zoo serve`: an HTTP server that speaks OpenAI's protocol, around continuous batching.

| module      | what is in it                                                              |
|-------------|----------------------------------------------------------------------------|
| `schema`    | what a client may ask, and the limits of a server; torch-free              |
| `errors`    | a refusal: status, OpenAI's JSON shape, one sentence                       |
| `answers`   | what is sent: completions and chat, whole and in chunks                    |
| `engine`    | the one thread that decodes, and how requests get in and out of it         |
| `app`       | the routes                                                                 |
| `server`    | sockets, signals, a bounded end                                            |

HTTP itself is starlette's and uvicorn's (the extra `serve`): parsing, flow control and noticing
that a client went away are theirs.
"""
