"""The loss of a transducer with durations, which torchaudio has not (Xu et al. 2023, arXiv
2304.06795, section 3.2)."""

# b batch, t tokens of sound, u labels so far, v labels in the vocabulary, k durations

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["duration_losses"]

NEVER = -1e30  # log-probability of what cannot be; finite, so that its gradient is 0 and not NaN


def duration_losses(
    logits: Tensor,  # b t u+1 v+k
    targets: Tensor,  # b u
    lengths: Tensor,  # b, tokens of sound
    target_lengths: Tensor,  # b
    blank: int,
    durations: Sequence[int],
    sigma: float = 0.0,
) -> Tensor:  # -> b
    """Returns minus the log-probability of the labels over all alignments.

    From (t, u) a label goes to (t + d, u + 1) and a blank to (t + d, u), each with one of the
    `durations` d; a blank's is not 0, and the last thing is a blank that ends with the sound.
    `sigma` is taken off the log-probability of labels and blanks, so that long durations, which
    take fewer of them, are preferred.
    """
    vocabulary = logits.shape[-1] - len(durations)
    spoken, lasting = logits.double().split([vocabulary, len(durations)], -1)
    spoken = spoken.log_softmax(-1) - sigma
    lasting = lasting.log_softmax(-1).unbind(-1)  # b t u+1, for each duration
    silent = spoken[..., blank]  # b t u+1
    index = targets.long()[:, None, :, None].expand(-1, logits.shape[1], -1, 1)
    label = spoken[:, :, :-1].gather(-1, index)[..., 0]  # b t u
    places = [_first(silent[:, 0])]  # of each t, log-probability of being there: b u+1
    places[0] = _within(places[0], label[:, 0], lasting, durations, 0)
    for t in range(1, logits.shape[1]):
        ways = [torch.full_like(silent[:, 0], NEVER)]
        for d, log in zip(durations, lasting, strict=True):
            if 0 < d <= t:
                came, so_long = places[t - d], log[:, t - d]
                ways.append(came + silent[:, t - d] + so_long)
                said = came[:, :-1] + label[:, t - d] + so_long[:, :-1]
                ways.append(torch.nn.functional.pad(said, (1, 0), value=NEVER))
        here = torch.stack(ways).logsumexp(0)
        places.append(_within(here, label[:, t], lasting, durations, t))
    return -_ended(torch.stack(places, 1), silent, lasting, durations, lengths, target_lengths)


def _first(like: Tensor) -> Tensor:  # b u+1
    """Returns the log-probabilities of the beginning: nothing is said yet."""
    start = torch.full_like(like, NEVER)
    start[:, 0] = 0.0
    return start


def _within(
    here: Tensor, label: Tensor, lasting: Sequence[Tensor], durations: Sequence[int], t: int
) -> Tensor:  # b u+1, b u -> b u+1
    """Returns `here` with the labels that take no time: here[u] + … = logaddexp(here[u], the last +
    label[u-1]), for all u at once by sums of differences."""
    if 0 not in durations:
        return here
    step = label + lasting[list(durations).index(0)][:, t, :-1]
    gained = torch.nn.functional.pad(step.cumsum(-1), (1, 0))
    return (here - gained).logcumsumexp(-1) + gained


def _ended(
    places: Tensor,  # b t u+1
    silent: Tensor,
    lasting: Sequence[Tensor],
    durations: Sequence[int],
    lengths: Tensor,
    target_lengths: Tensor,
) -> Tensor:  # -> b
    rows = torch.arange(len(lengths), device=lengths.device)
    ways = []
    for d, log in zip(durations, lasting, strict=True):
        if d:
            last = (lengths - d).long()
            at = rows, last.clamp(min=0), target_lengths.long()
            ways.append(torch.where(last >= 0, places[at] + silent[at] + log[at], NEVER))
    return torch.stack(ways).logsumexp(0)
