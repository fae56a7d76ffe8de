"""What torch can compute on."""

from __future__ import annotations

from collections.abc import Iterator

from zoo.doctor.report import Finding

__all__ = ["look"]


def look() -> Iterator[Finding]:
    """Yields CUDA devices, or why there are none, the CPU's threads and its kernels."""
    import torch

    built = torch.version.cuda or (torch.version.hip and f"ROCm {torch.version.hip}")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(index)
            bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16"
            text = f"{device.name}, {device.total_memory / 2**30:.0f} GiB, {bf16}, CUDA {built}"
            yield Finding("accelerator", f"cuda:{index}", "ok", text)
    elif built:
        yield Finding("accelerator", "cuda", "absent", f"no GPU is visible (torch knows {built})")
    else:
        yield Finding("accelerator", "cuda", "absent", "this torch is built for CPUs only")
    if torch.backends.mps.is_available():
        yield Finding("accelerator", "mps", "ok", "Apple GPU")
    yield Finding("accelerator", "cpu", "note", f"{torch.get_num_threads()} threads")
    yield _kernels()


def _kernels() -> Finding:
    """Returns whether zoo's own kernels for decoding on a CPU are there."""
    from zoo.nn import native
    from zoo.nn.matmul import chosen

    if native.library() is not None:
        return Finding("accelerator", "kernels", "ok", "zoo's own, for decoding on a CPU")
    if chosen() == "torch":
        return Finding("accelerator", "kernels", "note", "PyTorch's: ZOO_LINEAR=torch")
    text = "PyTorch's, and slower: zoo was installed without a C compiler, or its C has changed"
    return Finding("accelerator", "kernels", "absent", text, "install gcc, then zoo once more")
