"""Where the arithmetic happens: device, precision, seed, ranks, and what to do when memory runs out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from capivara_cli.errors import CapivaraError

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
    """What a command computes on.

    Attributes:
        device: as torch spells it: `cpu`, `cuda:0`, `mps`.
        precision: `fp32`, `bf16` or `fp16`; `auto` until `for_width` has seen the model.
        seed: of everything random. Two runs with one seed on one machine are the same.
        rank, world_size: this process among those that torchrun started; 0 of 1 without torchrun.
        reason: why this device, for the person.
    """

    device: str
    precision: str
    seed: int = 0
    rank: int = 0
    world_size: int = 1
    reason: str = ""

    @classmethod
    def pick(cls, device: str = "auto", precision: str = "auto", seed: int = 0) -> Runtime:
        """Take the best device that is there, or the one that was asked for.

        Raises CapivaraError when the device or the precision is not to be had on this machine.
        """
        rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        if precision not in PRECISIONS:
            raise CapivaraError(f"--precision {precision} is not known", f"one of {', '.join(PRECISIONS)}")
        chosen, reason = _pick_device(device, int(os.environ.get("LOCAL_RANK", 0)))
        if precision == "fp16" and chosen == "cpu":
            raise CapivaraError("--precision fp16 needs a GPU: this CPU has no fp16 training", "--precision bf16")
        runtime = cls(chosen, precision, seed, rank, world_size, reason)
        runtime._start()
        return runtime

    def _start(self) -> None:
        import torch

        torch.manual_seed(self.seed)
        if self.device.startswith("cuda"):
            torch.cuda.set_device(self.device)
            torch.set_float32_matmul_precision("high")  # TF32: what open_clip's trainer allows as well
        if self.world_size > 1 and not torch.distributed.is_initialized():
            torch.distributed.init_process_group("nccl" if self.device.startswith("cuda") else "gloo")

    def for_width(self, width: int) -> Runtime:
        """This runtime with `auto` precision settled for a text tower of that width."""
        if self.precision != "auto":
            return self
        return replace(self, precision=_pick_precision(self.device, width))

    def describe(self) -> str:
        """One line: what was chosen, and why."""
        ranks = f", rank {self.rank} of {self.world_size}" if self.world_size > 1 else ""
        return f"{self.device} in {self.precision}{ranks} ({self.reason})"

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and talks to the person."""
        return self.rank == 0

    def autocast(self) -> AbstractContextManager[object]:
        """Mixed precision around a forward pass; nothing in fp32."""
        import torch

        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.precision)
        return torch.autocast(self.device.split(":")[0], dtype, enabled=dtype is not None)

    def attention(self) -> AbstractContextManager[object]:
        """The kernel for attention over some dozen tokens.

        On a CPU torch's flash attention is slow backwards in bf16: 17 ms for 32 texts of 20 tokens and 12 heads,
        forward and back, where plain matrix products take 6 ms. Forwards, and in fp32, it is the faster one.
        """
        import torch
        from torch.nn.attention import SDPBackend, sdpa_kernel

        if self.device == "cpu" and self.precision == "bf16" and torch.is_grad_enabled():
            return sdpa_kernel(SDPBackend.MATH)
        return nullcontext()

    def batches(self, run: Callable[[slice], T], total: int, size: int) -> Iterator[tuple[slice, T]]:
        """Run a function over consecutive slices of 0..total; when memory runs out, halve the slice and go on.

        Raises CapivaraError when a single item does not fit.
        """
        start = 0
        while start < total:
            part = slice(start, min(start + size, total))
            try:
                result = run(part)
            except RuntimeError as error:
                size = self.smaller(error, part.stop - part.start)
                continue
            yield part, result
            start = part.stop

    def smaller(self, error: RuntimeError, size: int) -> int:
        """Half the size if the error says that memory ran out; raises the error again if it is another one."""
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
            import torch

            with _together():
                torch.distributed.barrier()

    def gather(self, rows: Tensor) -> Tensor:
        """(n, ...) of each rank, n the same on all -> (world_size * n, ...), in the order of the ranks."""
        import torch

        if self.world_size == 1:
            return rows
        parts = [torch.empty_like(rows) for _ in range(self.world_size)]
        with _together():
            torch.distributed.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    def sum_gradients(self, parameters: list[torch.nn.Parameter]) -> None:
        """Add up the gradients of all ranks, in place."""
        import torch

        if self.world_size > 1:
            for parameter in parameters:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                with _together():
                    torch.distributed.all_reduce(parameter.grad)

    def any_rank(self, flag: bool) -> bool:
        """Whether the flag is set on any rank."""
        import torch

        if self.world_size == 1:
            return flag
        flags = torch.tensor(int(flag), device=self.device)
        with _together():
            torch.distributed.all_reduce(flags)
        return bool(flags)

    def least(self, number: int) -> int:
        """The smallest of all ranks' numbers."""
        import torch

        if self.world_size == 1:
            return number
        numbers = torch.tensor(number, device=self.device)
        with _together():
            torch.distributed.all_reduce(numbers, torch.distributed.ReduceOp.MIN)
        return int(numbers)

    def memory(self) -> tuple[int, int]:
        """Bytes of memory that are free now, and the most that this process has used, on the device."""
        import torch

        if self.device.startswith("cuda"):
            return torch.cuda.mem_get_info(self.device)[0], torch.cuda.max_memory_allocated(self.device)
        import resource

        return _free_memory(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@contextmanager
def _together() -> Iterator[None]:
    """Around what all ranks do together. Raises CapivaraError when one of them is there no more."""
    try:
        yield
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise CapivaraError(f"another rank has stopped: {first}", "its own error says why") from error


def leave() -> None:
    """Leave the group of ranks, if this process ever joined one."""
    import sys

    torch = sys.modules.get("torch")
    if torch is not None and torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch means that memory ran out: a class of its own on GPUs, a sentence on CPUs."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator: can't allocate memory" in str(error)


def _pick_device(device: str, local_rank: int) -> tuple[str, str]:
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
            return f"cuda:{index}", f"{torch.cuda.get_device_name(index)}, as asked"
        raise CapivaraError(f"--device {device}: torch sees {gpus} CUDA devices here", "--device auto")
    if device == "mps" and not torch.backends.mps.is_available():
        raise CapivaraError("--device mps: no Apple GPU here", "--device auto")
    if device in ("cpu", "mps"):
        return device, "as asked"
    raise CapivaraError(f"--device {device} is not known", "one of auto, cpu, cuda, cuda:0, mps")


def _pick_precision(device: str, width: int) -> str:
    import torch

    if device.startswith("cuda"):
        return "bf16" if torch.cuda.get_device_capability(device)[0] >= 8 else "fp16"
    if device == "mps":
        return "fp32"
    fast = width >= MIN_BF16_WIDTH_ON_CPU and {"avx512_bf16", "amx_bf16"} & _cpu_flags()
    return "bf16" if fast else "fp32"


def _cpu_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return next((set(line.split()) for line in lines if line.startswith("flags")), set())


def _free_memory() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return 4 << 30  # not Linux: assume a small machine
