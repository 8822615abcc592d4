from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from capivara_cli.inspection.doctor import DEFAULTS, doctor
from capivara_cli.runtime import Runtime
from tests.conftest import Process, command

Capivara = Callable[..., Process]


def test_it_shows_this_machine(capivara: Capivara, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPIVARA_CACHE", str(tmp_path / "cache"))
    result = capivara("doctor", "--json")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["packages"]["torch"] == torch.__version__.partition("+")[0]
    assert found["cache"]["folder"] == str(tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
    assert {row["model"] for row in found["defaults"]} >= {"Salesforce/blip2-opt-2.7b-coco"}


def test_an_unreachable_hub_is_said_and_is_not_an_error() -> None:
    environment = os.environ | {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0"}
    result = subprocess.run(command("doctor"), env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "hub:    http://127.0.0.1:9 does not answer" in result.stdout


def test_an_extra_that_lacks_a_package_is_named_with_its_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    version = importlib.metadata.version

    def without_pyarrow(name: str) -> str:
        if name == "pyarrow":
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", without_pyarrow)
    found = doctor()
    assert found["missing extras"] == {"parquet": "pip install 'capivara-cli[parquet]'"}
    assert "parquet is not installed: pip install 'capivara-cli[parquet]'" in capsys.readouterr().out


def test_a_model_that_is_larger_than_the_free_memory_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Runtime, "memory", lambda _: (6 << 30, 0))
    fits = {row["use"]: row["fits"] for row in doctor()["defaults"]}
    assert not fits["caption"]  # 3.74 billion weights of two bytes are 7 GiB
    assert fits["caption --quantize 8bit"]


def test_memory_is_weights_and_working_memory() -> None:
    full, quantised = DEFAULTS[:2]
    assert full.memory("bf16") == pytest.approx(3.74e9 * 2 / 2**30 + full.working)
    assert full.memory("fp32") == pytest.approx(3.74e9 * 4 / 2**30 + full.working)
    assert quantised.memory("fp32") == pytest.approx(3.74e9 / 2**30 + quantised.working)
