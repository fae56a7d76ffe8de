"""Pictures and video as whole numbers: encoders, quantizers, decoders and reconstruction losses.

The parts here are put together by `zoo.models.codes`; each swaps by an override. Vectors are kept
channels-last, (b, *grid, d), whatever the grid: (rows, columns) of a picture, (times, rows,
columns) of a video.
"""
