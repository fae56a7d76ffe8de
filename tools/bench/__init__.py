"""Speed as a ratio: ours and a peer's, interleaved in one run, outputs compared before a number
is printed.

    python -m tools.bench                                # what there is
    python -m tools.bench vit --against timm transformers --json bench.json

A case is a module in tools/bench/cases with `DOC`, `PEERS` and `prepare(peers, options) ->
Prepared`.
"""
