from __future__ import annotations

import pytest
import torch

from capivara_cli.errors import BadOption, CapivaraError
from capivara_cli.runtime import Runtime

CPU = Runtime("cpu", "fp32")


@pytest.mark.parametrize(
    ("device", "precision", "says"),
    [
        ("gpu", "auto", "one of auto, cpu, cuda"),
        ("cuda:99", "auto", "torch finds"),
        ("cuda:x", "auto", "is not known"),
        ("cpu", "int8", "one of auto, fp32, bf16, fp16"),
        ("cpu", "fp16", "needs a GPU"),
    ],
)
def test_an_unavailable_device_or_precision_is_an_error(device: str, precision: str, says: str) -> None:
    with pytest.raises(CapivaraError) as error:
        Runtime.start(device, precision)
    assert says in f"{error.value.message} {error.value.hint}"


def test_the_description_has_device_precision_and_reason() -> None:
    assert Runtime.start("cpu", "fp32").describe() == "cpu in fp32 (as requested)"


def test_a_small_model_stays_in_fp32_on_a_cpu() -> None:
    assert Runtime("cpu", "auto").for_width(128).precision == "fp32"
    assert Runtime("cpu", "bf16").for_width(128).precision == "bf16"


def test_the_same_seed_gives_the_same_random_numbers() -> None:
    drawn = []
    for seed in (1, 1, 2):
        Runtime.start("cpu", "fp32", seed)
        drawn.append(torch.rand(3).tolist())
    assert drawn[0] == drawn[1] != drawn[2]


def test_out_of_memory_halves_the_batch_and_loses_nothing() -> None:
    sizes = []

    def run(part: slice) -> list[int]:
        size = part.stop - part.start
        sizes.append(size)
        if size > 6:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return list(range(part.start, part.stop))

    results = [item for _, items in CPU.batches(run, 30, 25) for item in items]
    assert results == list(range(30))
    assert sizes[:3] == [25, 12, 6]
    assert max(sizes[2:]) == 6


def test_a_real_allocation_that_fails_on_a_cpu_is_out_of_memory() -> None:
    def run(part: slice) -> int:
        torch.empty((part.stop - part.start) << 60, dtype=torch.uint8) if part.stop - part.start > 1 else None
        return part.start

    with pytest.raises(RuntimeError) as error:
        run(slice(0, 2))
    assert CPU.halve_on_oom(error.value, 2) == 1
    assert [start for _, start in CPU.batches(run, 3, 2)] == [0, 1, 2]


def test_a_single_item_that_does_not_fit_is_an_error_with_a_hint() -> None:
    def run(_part: slice) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(CapivaraError, match="single item"):
        list(CPU.batches(run, 4, 4))


def test_another_error_is_not_treated_as_out_of_memory() -> None:
    def run(_part: slice) -> None:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        list(CPU.batches(run, 4, 4))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_is_used_if_there_is_one() -> None:
    runtime = Runtime.start()
    assert runtime.device.startswith("cuda")
    assert runtime.for_width(128).precision in ("bf16", "fp16")


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RANK": "x"}, "RANK is 'x', not a number"),
        ({"LOCAL_RANK": "-1"}, "LOCAL_RANK is '-1', not a number"),
        ({"RANK": "1"}, "RANK is 1, with a WORLD_SIZE of 1"),
        ({"WORLD_SIZE": "3"}, "WORLD_SIZE is 3, without RANK, MASTER_ADDR, MASTER_PORT"),
        ({"WORLD_SIZE": "3", "RANK": "2"}, "WORLD_SIZE is 3, without MASTER_ADDR, MASTER_PORT"),
    ],
)
def test_a_part_of_torchruns_environment_is_refused(
    variables: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(CapivaraError, match=message) as caught:
        Runtime.start("cpu")
    assert "unset RANK WORLD_SIZE LOCAL_RANK" in str(caught.value.hint)


def test_a_device_that_is_not_one_is_a_usage_error() -> None:
    with pytest.raises(BadOption, match="--device nope is not known") as caught:
        Runtime.start("nope")
    assert caught.value.exit_code == 2
    assert "auto, cpu, cuda" in str(caught.value.hint)
