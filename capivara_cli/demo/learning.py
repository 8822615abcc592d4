"""What the demo's small models share: a BPE tokenizer learned from texts, a training loop, and a folder to save to."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capivara_cli import artifacts

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor
    from torch.nn import Module


def learn_bpe(texts: Iterable[str], vocabulary: int, special: Sequence[str], *, byte_level: bool = False) -> Tokenizer:
    """Learn BPE pieces of words, as SentencePiece marks them, or of bytes, as GPT-2 does."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE() if byte_level else models.BPE(unk_token="<unk>"))
    alphabet = []
    if byte_level:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=list(special), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def vocabulary_and_merges(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return the arguments `vocab` and `merges` of transformers' BPE tokenizers."""
    model = json.loads(tokenizer.to_str())["model"]
    return {"vocab": model["vocab"], "merges": [tuple(merge) for merge in model["merges"]]}


def fit(
    model: Module,
    loss_of_step: Callable[[int], Tensor],
    *,
    steps: int,
    lr: float,
    warmup: int,
    weight_decay: float,
    slow: Module | None = None,
) -> None:
    """Train with AdamW, a linear warm-up and a cosine decay, and print the loss.

    Args:
        model: the module to train.
        loss_of_step: step number -> loss of that step's batch.
        steps: number of steps.
        lr: peak learning rate.
        warmup: steps until the learning rate reaches it.
        weight_decay: AdamW's.
        slow: part of the model that is pretrained and learns at a fifth of the rate.
    """
    import torch

    slow_parameters = list(slow.parameters()) if slow is not None else []
    slow_ids = {id(parameter) for parameter in slow_parameters}
    fast_parameters = [parameter for parameter in model.parameters() if id(parameter) not in slow_ids]
    groups = [{"params": fast_parameters, "scale": 1.0}, {"params": slow_parameters, "scale": 0.2}]
    optimizer = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), weight_decay=weight_decay)
    started = time.monotonic()
    for step in range(steps):
        decay = (1 + math.cos(math.pi * step / steps)) / 2 + 0.01  # a hundredth of the peak is left at the end
        for group in optimizer.param_groups:
            group["lr"] = group["scale"] * lr * min((step + 1) / warmup, decay)
        loss = loss_of_step(step)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % 100 == 0:
            print(
                f"step {step + 1:5d}  loss {float(loss.detach()):.4f}  {time.monotonic() - started:.0f} s", flush=True
            )


def save(folder: Path, model: Any, processor: Any, *, half: bool = False) -> Path:
    """Write a transformers model with its tokenizer or processor, whole or not at all; `half` for half precision."""
    with artifacts.writing(folder) as temporary:
        (model.half() if half else model).save_pretrained(temporary)
        processor.save_pretrained(temporary)
    return folder
