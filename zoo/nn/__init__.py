"""The parts: norms, positions, attention, masks, feed-forwards. Every one is named in `conf/`
and swaps by an override."""
