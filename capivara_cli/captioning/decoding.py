"""Continue many prefixes of many images at once: the image tokens' keys and values are computed once an image.

`transformers`' own `generate` would compute them for each prefix, and would go on computing for sequences that have
ended. What comes out is the same, token for token.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from transformers import Cache
from transformers.cache_utils import DynamicLayer

if TYPE_CHECKING:
    from torch import Tensor

COMPACT_BELOW = 0.8  # share of rows still at work: below it, copying the others away pays


class _Room(DynamicLayer):
    """Keys and values of one layer with room for what is to come; growing by torch.cat copies all at each step."""

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity
        self.store: list[Tensor] = []  # keys and values, (B, heads, capacity, d)

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Append (B, heads, n, d) to both; gives all that is there."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            shape = (*key_states.shape[:2], self.capacity, key_states.shape[3])
            self.store = [key_states.new_empty(shape), value_states.new_empty(shape)]
        start = self.get_seq_length()
        end = start + key_states.shape[2]
        for stored, new in zip(self.store, (key_states, value_states), strict=True):
            stored[:, :, start:end] = new
        return self._look(end)

    def _look(self, length: int) -> tuple[Tensor, Tensor]:
        keys, values = (stored[:, :, :length] for stored in self.store)
        self.keys, self.values = keys, values
        return keys, values

    def take(self, rows: Tensor) -> None:
        """Keep these rows of the batch, each as often as it is named."""
        length = self.get_seq_length()
        for i, stored in enumerate(self.store):
            grown = stored.new_empty(len(rows), *stored.shape[1:])
            grown[:, :, :length] = stored[rows, :, :length]
            self.store[i] = grown
        self._look(length)


@dataclass
class Decoder:
    """A decoder-only language model that goes on from embeddings.

    Attributes:
        model: a causal language model of transformers, in eval mode.
        eos: tokens that end a sequence.
        max_new_tokens: after the prefix.
        num_beams, length_penalty, early_stopping: as in transformers' generation config.
    """

    model: Any
    eos: Tensor
    max_new_tokens: int
    num_beams: int = 1
    length_penalty: float = 1.0
    early_stopping: bool | str = False

    def __call__(self, images: Tensor, prefixes: Tensor, mask: Tensor) -> list[list[int]]:
        """Go on after each prefix of each image.

        Args:
            images: (N, Q, d) the image tokens' embeddings.
            prefixes: (K, P, d) the prefixes' embeddings, padded on the left.
            mask: (K, P) int64, 0 where there is padding.

        Returns:
            the new tokens of N * K sequences, image by image, without the token that ended them.
        """
        import torch

        count, total = len(prefixes), len(images) * len(prefixes)
        cache = self._cache(images.shape[1] + prefixes.shape[1] + self.max_new_tokens)
        self.model(inputs_embeds=images, use_cache=True, logits_to_keep=1, **self._with(cache))
        _take(cache, torch.arange(len(images), device=images.device).repeat_interleave(count))
        seen = torch.ones(total, images.shape[1], dtype=torch.long, device=images.device)
        state = _State(cache, torch.cat([seen, mask.repeat(len(images), 1)], dim=1))
        logits = self._forward(state, embeds=prefixes.repeat(len(images), 1, 1))
        return self._beams(state, logits) if self.num_beams > 1 else self._greedy(state, logits)

    def _cache(self, capacity: int) -> Cache:
        return Cache(layers=[_Room(capacity) for _ in range(self.model.config.num_hidden_layers)])

    def _with(self, cache: Cache) -> dict[str, Cache]:
        """The keyword argument for the cache: transformers 5.24 renamed `past_key_values`."""
        renamed = "cache" in inspect.signature(self.model.forward).parameters
        return {"cache" if renamed else "past_key_values": cache}

    def _forward(self, state: _State, *, embeds: Tensor | None = None, tokens: Tensor | None = None) -> Tensor:
        """One step for all rows -> the last position's logits (B, V) float32."""
        new = embeds.shape[1] if embeds is not None else 1
        positions = (state.mask.cumsum(1) - 1).clamp(min=0)[:, -new:]
        output = self.model(
            input_ids=tokens[:, None] if tokens is not None else None,
            inputs_embeds=embeds,
            attention_mask=state.mask,
            position_ids=positions,
            use_cache=True,
            logits_to_keep=1,
            **self._with(state.cache),
        )
        return output.logits[:, -1].float()

    def _greedy(self, state: _State, logits: Tensor) -> list[list[int]]:
        import torch

        rows = torch.arange(len(logits), device=logits.device)  # which sequence each row of the batch is
        tokens = logits.new_full((len(logits), self.max_new_tokens), -1, dtype=torch.long)
        done = torch.zeros(len(logits), dtype=torch.bool, device=logits.device)
        for step in range(self.max_new_tokens):
            chosen = logits.argmax(-1)
            done = done | torch.isin(chosen, self.eos)
            tokens[rows[~done], step] = chosen[~done]
            left = int((~done).sum())
            if left == 0 or step + 1 == self.max_new_tokens:
                break
            if left < COMPACT_BELOW * len(done):
                keep = (~done).nonzero().flatten()
                state.take(keep)
                rows, chosen, done = rows[keep], chosen[keep], done[keep]
            state.grow()
            logits = self._forward(state, tokens=chosen)
        return [[token for token in row if token >= 0] for row in tokens.tolist()]

    def _beams(self, state: _State, logits: Tensor) -> list[list[int]]:
        """Beam search as transformers does it, an item (image and prefix) at rest as soon as it cannot get better."""
        import torch

        beams, device = self.num_beams, logits.device
        kept = max(2, 1 + len(self.eos)) * beams  # so many candidates that enough of them have not ended
        total = len(logits)
        items = torch.arange(total, device=device)  # which item each row of the tables below is
        running = torch.empty(total, 1, 0, dtype=torch.long, device=device)  # (items, beams, step)
        scores = torch.zeros(total, 1, device=device)
        best = torch.full((total, beams, self.max_new_tokens), -1, dtype=torch.long, device=device)
        best_scores = torch.full((total, beams), -1e9, device=device)
        ended = torch.zeros(total, beams, dtype=torch.bool, device=device)
        result: list[list[int]] = [[]] * total
        for step in range(1, self.max_new_tokens + 1):
            vocabulary = logits.shape[-1]
            summed = logits.log_softmax(-1).unflatten(0, scores.shape) + scores[:, :, None]
            top, flat = summed.flatten(1).topk(min(kept, summed[0].numel()))  # (items, kept)
            parents, chosen = flat // vocabulary, flat % vocabulary
            grown = torch.cat([running.gather(1, parents[:, :, None].expand(-1, -1, step - 1)), chosen[:, :, None]], 2)
            stops = torch.isin(chosen, self.eos) | (step == self.max_new_tokens)

            # What may go on: the best that have not ended.
            open_scores, order = (top + stops * -1e9).topk(beams)
            running = grown.gather(1, order[:, :, None].expand(-1, -1, step))
            # What has ended: among the first `beams` candidates only; the others are there to go on from.
            over = stops & (torch.arange(top.shape[1], device=device) < beams)
            full = ended.all(1, keepdim=True) & (self.early_stopping is True)
            final = top / step**self.length_penalty + (full | ~over) * -1e9
            padded = torch.nn.functional.pad(grown, (0, self.max_new_tokens - step), value=-1)
            best_scores, index = torch.cat([best_scores, final], 1).topk(beams)
            best = torch.cat([best, padded], 1).gather(1, index[:, :, None].expand(-1, -1, self.max_new_tokens))
            ended = torch.cat([ended, over], 1).gather(1, index)

            scores = open_scores
            rest = self._at_rest(scores, best_scores, ended, step)
            if bool(rest.any()):
                for item, row in zip(items[rest].tolist(), best[rest, 0].tolist(), strict=True):
                    result[item] = self._trim(row)
            if bool(rest.all()):
                break
            go = (~rest).nonzero().flatten()
            width = 1 if step == 1 else beams
            state.take((go[:, None] * width + parents.gather(1, order)[go]).flatten())
            items, running, scores, best, best_scores, ended = (
                table[go] for table in (items, running, scores, best, best_scores, ended)
            )
            state.grow()
            logits = self._forward(state, tokens=running[:, :, -1].flatten())
        return result

    def _at_rest(self, scores: Tensor, best_scores: Tensor, ended: Tensor, step: int) -> Tensor:
        """(items,) whether no open beam can still beat what has ended, by transformers' rule."""
        import torch

        longest = self.early_stopping == "never" and self.length_penalty > 0
        possible = scores[:, :1] / (self.max_new_tokens if longest else step) ** self.length_penalty
        worst = torch.where(ended, best_scores.min(1, keepdim=True).values, torch.full_like(best_scores, -1e9))
        rest = ~(possible > worst).any(1) | (ended.all(1) & (self.early_stopping is True))
        return rest | (step == self.max_new_tokens)

    def _trim(self, row: list[int]) -> list[int]:
        ends = set(self.eos.tolist())
        return [token for token in row if token >= 0 and token not in ends]


@dataclass
class _State:
    """What the model has seen: the cache and the mask (B, length), 0 where there is padding."""

    cache: Cache
    mask: Tensor

    def take(self, rows: Tensor) -> None:
        """Keep these rows, each as often as it is named."""
        _take(self.cache, rows)
        self.mask = self.mask[rows]

    def grow(self) -> None:
        """A column for the token to come."""
        import torch

        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), 1)], dim=1)


def _take(cache: Cache, rows: Tensor) -> None:
    layers: list[Any] = cache.layers
    for layer in layers:
        layer.take(rows)
