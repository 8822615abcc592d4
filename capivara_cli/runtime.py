"""What a command computes on: device, precision, seed and ranks, and how it recovers from lack of memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from capivara_cli.errors import BadOption, CapivaraError, first_line

if TYPE_CHECKING:
    import torch
    from torch import Tensor

T = TypeVar("T")

PRECISIONS = ("auto", "fp32", "bf16", "fp16")

# Below this width of the text tower, bf16 autocast on a CPU costs more in conversions than it saves:
# forward + backward of XLM-R on an AVX512-BF16 CPU, fp32 / bf16 seconds: width 128: 0.7, 256 to 768: 1.5 to 1.8.
MIN_BF16_WIDTH_ON_CPU = 256


@dataclass(frozen=True)
class Runtime:
    """The device, precision and process group of a command.

    Attributes:
        device: as torch spells it: `cpu`, `cuda:0`, `mps`.
        precision: `fp32`, `bf16` or `fp16`; `auto` until `for_width` has seen the model.
        seed: random seed. Two runs with the same seed on the same machine give the same result.
        rank, world_size: this process and the number of processes that torchrun started; 0 and 1 without torchrun.
        reason: why this device was chosen, for the user.
    """

    device: str
    precision: str
    seed: int = 0
    rank: int = 0
    world_size: int = 1
    reason: str = ""

    @classmethod
    def start(cls, device: str = "auto", precision: str = "auto", seed: int = 0) -> Runtime:
        """Choose the device, seed torch and, under torchrun, join the process group.

        Args:
            device: `auto` takes the first of GPU, Apple GPU and CPU that exists.
            precision: one of PRECISIONS.
            seed: of torch's generators.

        Raises:
            CapivaraError: this machine has no such device or precision.
        """
        rank, world_size, local_rank = read_ranks()
        if precision not in PRECISIONS:
            raise BadOption(f"--precision {precision} is not known", f"one of {', '.join(PRECISIONS)}")
        device, reason = _choose_device(device, local_rank)
        if precision == "fp16" and device == "cpu":
            raise CapivaraError("--precision fp16 needs a GPU: CPUs cannot train in fp16", "--precision bf16")

        import torch

        torch.manual_seed(seed)
        on_gpu = device.startswith("cuda")
        if on_gpu:
            torch.cuda.set_device(device)
            torch.set_float32_matmul_precision("high")  # TF32, as open_clip's trainer allows too
        if world_size > 1 and not torch.distributed.is_initialized():
            torch.distributed.init_process_group("nccl" if on_gpu else "gloo")
        return cls(device, precision, seed, rank, world_size, reason)

    def for_width(self, width: int) -> Runtime:
        """Return this runtime with `auto` precision resolved for a text tower of this width."""
        if self.precision != "auto":
            return self
        return replace(self, precision=_choose_precision(self.device, width))

    def describe(self) -> str:
        """Return one line for the user: device, precision, rank and the reason."""
        ranks = f", rank {self.rank} of {self.world_size}" if self.world_size > 1 else ""
        return f"{self.device} in {self.precision}{ranks} ({self.reason})"

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files and prints the messages."""
        return self.rank == 0

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of what is computed; also of weights that are not trained, which need no fp32 copy."""
        import torch

        return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.precision, torch.float32)

    def autocast(self) -> AbstractContextManager[object]:
        """Return the mixed-precision context for a forward pass; it does nothing in fp32."""
        import torch

        return torch.autocast(self.device.split(":")[0], self.dtype, enabled=self.dtype != torch.float32)

    def attention(self) -> AbstractContextManager[object]:
        """Return the context that picks the fastest attention kernel for texts of some dozen tokens.

        On a CPU, torch's flash attention has a slow backward pass in bf16: forward and backward of 32 texts with 20
        tokens and 12 heads take 17 ms, plain matrix products 6 ms. For the forward pass alone, and in fp32, flash
        attention is faster.
        """
        import torch
        from torch.nn.attention import SDPBackend, sdpa_kernel

        if self.device == "cpu" and self.precision == "bf16" and torch.is_grad_enabled():
            return sdpa_kernel(SDPBackend.MATH)
        return nullcontext()

    def batches(self, run: Callable[[slice], T], total: int, size: int) -> Iterator[tuple[slice, T]]:
        """Run a function over consecutive slices of 0..total. If memory runs out, halve the slice and try again.

        Raises CapivaraError when a single item does not fit.
        """
        start = 0
        while start < total:
            part = slice(start, min(start + size, total))
            try:
                result = run(part)
            except RuntimeError as error:
                size = self.halve_on_oom(error, part.stop - part.start)
                continue
            yield part, result
            start = part.stop

    def halve_on_oom(self, error: RuntimeError, size: int) -> int:
        """Return half the batch size if the error means that memory ran out.

        Raises the error itself if it is any other one, and CapivaraError when a single item does not fit.
        """
        import torch

        if not is_out_of_memory(error):
            raise error
        if size <= 1:
            raise CapivaraError(
                f"out of memory on {self.device} with a single item", "use a smaller model, or --device cpu"
            ) from error
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()
        return size // 2

    def barrier(self) -> None:
        """Wait for the other ranks."""
        if self.world_size > 1:
            import torch  # not earlier: `import` and `export` work without it

            with _collective():
                torch.distributed.barrier()

    def gather(self, rows: Tensor) -> Tensor:
        """Concatenate (n, ...) of all ranks to (world_size * n, ...), in rank order; n must be the same on all."""
        import torch

        if self.world_size == 1:
            return rows
        parts = [torch.empty_like(rows) for _ in range(self.world_size)]
        with _collective():
            torch.distributed.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    def sum_gradients(self, parameters: list[torch.nn.Parameter]) -> None:
        """Sum the gradients over all ranks, in place."""
        import torch

        if self.world_size > 1:
            for parameter in parameters:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)  # all ranks must take part in each reduction
                with _collective():
                    torch.distributed.all_reduce(parameter.grad)

    def any_rank(self, flag: bool) -> bool:
        """Whether the flag is set on any rank."""
        return -self.min_over_ranks(-int(flag)) == 1

    def min_over_ranks(self, number: int) -> int:
        """Return the smallest of all ranks' numbers."""
        import torch

        if self.world_size == 1:
            return number
        numbers = torch.tensor(number, device=self.device)
        with _collective():
            torch.distributed.all_reduce(numbers, torch.distributed.ReduceOp.MIN)
        return int(numbers)

    def memory(self) -> tuple[int, int]:
        """Return the device's free bytes, and the peak bytes that this process has used."""
        import torch

        if self.device.startswith("cuda"):
            return torch.cuda.mem_get_info(self.device)[0], torch.cuda.max_memory_allocated(self.device)
        import resource

        return _free_memory(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@contextmanager
def _collective() -> Iterator[None]:
    """Wrap a collective operation: raise CapivaraError when another rank has died."""
    try:
        yield
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        raise CapivaraError(f"another rank has stopped: {first_line(error)}", "see that rank's own error") from error


def leave_process_group() -> None:
    """Leave torchrun's process group, if this process joined it."""
    import sys

    torch = sys.modules.get("torch")  # not imported: most commands end without it, and it takes seconds
    if torch is not None and torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch ran out of memory. GPUs have an exception class for that, CPUs only a message."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator: can't allocate memory" in str(error)


def read_ranks() -> tuple[int, int, int]:
    """Return this process's rank, the number of ranks, and its rank on this machine, as torchrun sets them.

    Raises CapivaraError where the environment contradicts itself: a part of it is left from something else.
    """
    hint = "start the command with torchrun, or type: unset RANK WORLD_SIZE LOCAL_RANK"
    numbers = []
    for name, default in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0")):
        text = os.environ.get(name, default)
        if not text.isdecimal():
            raise CapivaraError(f"the environment variable {name} is {text!r}, not a number", hint)
        numbers.append(int(text))
    rank, world_size, local_rank = numbers
    if rank >= world_size:
        raise CapivaraError(f"the environment variable RANK is {rank}, with a WORLD_SIZE of {world_size}", hint)
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if world_size > 1 and missing:
        raise CapivaraError(f"the environment variable WORLD_SIZE is {world_size}, without {', '.join(missing)}", hint)
    return rank, world_size, local_rank


def _choose_device(device: str, local_rank: int) -> tuple[str, str]:
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "auto":
        if gpus:
            index = local_rank % gpus
            return f"cuda:{index}", torch.cuda.get_device_name(index)
        if torch.backends.mps.is_available():
            return "mps", "Apple GPU"
        return "cpu", f"no GPU found, {torch.get_num_threads()} threads"
    kind, _, number = device.partition(":")
    if kind == "cuda" and (number.isdigit() or not number):
        index = int(number) if number else local_rank
        if index < gpus:
            return f"cuda:{index}", f"{torch.cuda.get_device_name(index)}, as requested"
        raise CapivaraError(f"--device {device}: torch finds {gpus} CUDA devices on this machine", "--device auto")
    if device == "mps" and not torch.backends.mps.is_available():
        raise CapivaraError("--device mps: this machine has no Apple GPU", "--device auto")
    if device in ("cpu", "mps"):
        return device, "as requested"
    raise BadOption(f"--device {device} is not known", "one of auto, cpu, cuda, cuda:0, mps")


def _choose_precision(device: str, width: int) -> str:
    import torch

    if device.startswith("cuda"):
        return "bf16" if torch.cuda.get_device_capability(device)[0] >= 8 else "fp16"
    if device == "mps":
        return "fp32"
    fast = width >= MIN_BF16_WIDTH_ON_CPU and {"avx512_bf16", "amx_bf16"} & _cpu_flags()
    return "bf16" if fast else "fp32"


def _cpu_flags() -> set[str]:
    return set(_proc_line("cpuinfo", "flags"))


def _free_memory() -> int:
    """Return the free bytes of main memory; 4 GB where there is no /proc."""
    words = _proc_line("meminfo", "MemAvailable")
    return int(words[1]) * 1024 if words else 4 << 30


def _proc_line(name: str, start: str) -> list[str]:
    """Return the words of the first line of /proc/NAME with this start; nothing if there is no such line or file."""
    try:
        lines = Path("/proc", name).read_text().splitlines()
    except OSError:
        return []
    return next((line.split() for line in lines if line.startswith(start)), [])
