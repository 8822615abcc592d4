"""Continue many prefixes of many images at once; keys and values of the image tokens are computed once per image.

`generate` of transformers would compute them for each prefix, and would keep computing sequences that have ended. The
new tokens are exactly those of `generate`.

In shapes, N is the number of images, K of prefixes, Q of image tokens, P the length of the longest prefix, D the width
of the language model, d the width of a head, B the number of sequences in the cache, E of tokens that end a sequence,
V of tokens in the vocabulary, and I the number of unfinished items; an item is one image with one prefix.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

from transformers import Cache
from transformers.cache_utils import DynamicLayer

if TYPE_CHECKING:
    from torch import Tensor

# When the share of unfinished rows falls below this, they are copied to a smaller batch: that costs less than computing
# the finished rows.
COMPACT_BELOW = 0.8

PADDING = -1  # in tables of new tokens: no token here
NEVER = -1e9  # a score that loses against every other one; minus infinity would become NaN in sums


class _PreallocatedLayer(DynamicLayer):
    """Keys and values of one layer, allocated once for the prompt and all new tokens.

    DynamicLayer itself grows by torch.cat, which copies everything at each step.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity
        self.stored: list[Tensor] = []  # keys and values, (B, heads, capacity, d) each; only the first part is filled

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Append keys and values, (B, heads, n, d) each; return all keys and all values."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            shape = (*key_states.shape[:2], self.capacity, key_states.shape[3])
            self.stored = [key_states.new_empty(shape), value_states.new_empty(shape)]
        start = self.get_seq_length()
        end = start + key_states.shape[2]
        for stored, new in zip(self.stored, (key_states, value_states), strict=True):
            stored[:, :, start:end] = new
        return self._expose(end)

    def _expose(self, length: int) -> tuple[Tensor, Tensor]:
        """Set what transformers reads, `keys` and `values`, to views of the filled part."""
        keys, values = (stored[:, :, :length] for stored in self.stored)
        self.keys, self.values = keys, values
        return keys, values

    def take(self, rows: Tensor) -> None:
        """Select rows of the batch. A row may be selected more than once."""
        length = self.get_seq_length()
        for i, stored in enumerate(self.stored):
            taken = stored.new_empty(len(rows), *stored.shape[1:])
            taken[:, :, :length] = stored[rows, :, :length]  # the empty rest need not be copied
            self.stored[i] = taken
        self._expose(length)


@dataclass
class _Context:
    """What the model has read so far.

    Attributes:
        cache: keys and values of B sequences.
        mask: (B, length) int64, 0 where a sequence has padding.
    """

    cache: Cache
    mask: Tensor

    def take(self, rows: Tensor) -> None:
        """Select rows of the batch. A row may be selected more than once."""
        layers: list[Any] = self.cache.layers
        for layer in layers:
            layer.take(rows)
        self.mask = self.mask[rows]

    def add_column(self) -> None:
        """Add a column of ones to the mask, for the next token."""
        import torch

        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), 1)], dim=1)


@dataclass
class _BeamTables:
    """The state of a beam search: one row per item that is not finished.

    Attributes:
        items: (I,) index of the item in the result.
        running: (I, beams, step) tokens of the unfinished sequences; (I, 1, 0) before the first step.
        scores: (I, beams) sum of the log-probabilities of the tokens in `running`; (I, 1) before the first step.
        best: (I, beams, max_new_tokens) the `beams` best finished sequences, in descending order of score, padded with
            PADDING.
        best_scores: (I, beams) scores of `best`: sums of log-probabilities, divided by length ** length_penalty.
        ended: (I, beams) whether the slot of `best` holds a finished sequence.
    """

    items: Tensor
    running: Tensor
    scores: Tensor
    best: Tensor
    best_scores: Tensor
    ended: Tensor

    @classmethod
    def start(cls, items: int, beams: int, max_new_tokens: int, device: Any) -> _BeamTables:
        """Return the tables before the first step."""
        import torch

        return cls(
            items=torch.arange(items, device=device),
            running=torch.empty(items, 1, 0, dtype=torch.long, device=device),
            scores=torch.zeros(items, 1, device=device),
            best=torch.full((items, beams, max_new_tokens), PADDING, dtype=torch.long, device=device),
            best_scores=torch.full((items, beams), NEVER, device=device),
            ended=torch.zeros(items, beams, dtype=torch.bool, device=device),
        )

    def take(self, rows: Tensor) -> None:
        """Keep only these rows of all tables."""
        for table in fields(self):
            setattr(self, table.name, getattr(self, table.name)[rows])


@dataclass
class Decoder:
    """A decoder-only language model that continues embeddings, greedily or by beam search.

    Attributes:
        model: a causal language model of transformers, in eval mode.
        eos: (E,) int64, ids of the tokens that end a sequence.
        max_new_tokens: maximum number of tokens after the prefix.
        num_beams, length_penalty, early_stopping: as in transformers' generation config.
    """

    model: Any
    eos: Tensor
    max_new_tokens: int
    num_beams: int = 1
    length_penalty: float = 1.0
    early_stopping: bool | str = False

    def __call__(self, images: Tensor, prefixes: Tensor, mask: Tensor) -> list[list[int]]:
        """Continue each prefix of each image.

        Args:
            images: (N, Q, D) embeddings of the image tokens, not normalised.
            prefixes: (K, P, D) token embeddings of the prefixes, padded on the left.
            mask: (K, P) int64, 0 where a prefix has padding.

        Returns:
            the new tokens of N * K sequences, image by image, without the token that ended them.
        """
        import torch

        count = len(prefixes)
        capacity = images.shape[1] + prefixes.shape[1] + self.max_new_tokens
        cache = Cache(layers=[_PreallocatedLayer(capacity) for _ in range(self.model.config.num_hidden_layers)])
        context = _Context(cache, torch.ones(images.shape[:2], dtype=torch.long, device=images.device))  # (N, Q)
        self.model(inputs_embeds=images, use_cache=True, logits_to_keep=1, **{self._cache_argument: cache})
        # From one row per image to one per item: (N * K, Q + P).
        context.take(torch.arange(len(images), device=images.device).repeat_interleave(count))
        context.mask = torch.cat([context.mask, mask.repeat(len(images), 1)], dim=1)
        logits = self._forward(context, embeds=prefixes.repeat(len(images), 1, 1))
        return self._beam_search(context, logits) if self.num_beams > 1 else self._greedy(context, logits)

    @cached_property
    def _cache_argument(self) -> str:
        """The name of the model's argument for the cache: transformers 5.24 renamed `past_key_values`."""
        return "cache" if "cache" in inspect.signature(self.model.forward).parameters else "past_key_values"

    def _forward(self, context: _Context, *, embeds: Tensor | None = None, tokens: Tensor | None = None) -> Tensor:
        """Read embeddings (B, n, D) or one token per row (B,); return the last position's logits (B, V) float32."""
        new = embeds.shape[1] if embeds is not None else 1
        # Positions count real tokens only. Padding is on the left and is masked, so its position does not matter.
        positions = (context.mask.cumsum(1) - 1).clamp(min=0)[:, -new:]
        output = self.model(
            input_ids=tokens[:, None] if tokens is not None else None,
            inputs_embeds=embeds,
            attention_mask=context.mask,
            position_ids=positions,
            use_cache=True,
            logits_to_keep=1,
            **{self._cache_argument: context.cache},
        )
        return output.logits[:, -1].float()

    def _greedy(self, context: _Context, logits: Tensor) -> list[list[int]]:
        """Take the likeliest token at each step."""
        import torch

        rows = torch.arange(len(logits), device=logits.device)  # (B,) index in the result of each row of the batch
        result = logits.new_full((len(logits), self.max_new_tokens), PADDING, dtype=torch.long)  # (N * K, steps)
        done = torch.zeros(len(logits), dtype=torch.bool, device=logits.device)  # (B,)
        for step in range(self.max_new_tokens):
            next_tokens = logits.argmax(-1)  # (B,)
            done = done | torch.isin(next_tokens, self.eos)
            result[rows[~done], step] = next_tokens[~done]
            unfinished = int((~done).sum())
            if unfinished == 0 or step + 1 == self.max_new_tokens:
                break
            if unfinished < COMPACT_BELOW * len(done):
                keep = (~done).nonzero().flatten()
                context.take(keep)
                rows, next_tokens, done = rows[keep], next_tokens[keep], done[keep]
            context.add_column()
            logits = self._forward(context, tokens=next_tokens)
        return [[token for token in row if token != PADDING] for row in result.tolist()]

    def _beam_search(self, context: _Context, logits: Tensor) -> list[list[int]]:
        """Search as transformers does, but remove an item from the batch as soon as `_is_finished` holds for it."""
        tables = _BeamTables.start(len(logits), self.num_beams, self.max_new_tokens, logits.device)
        result: list[list[int]] = [[]] * len(logits)
        for step in range(1, self.max_new_tokens + 1):
            parents = self._extend(tables, logits, step)  # (I, beams)
            finished = self._is_finished(tables, step)  # (I,)
            if bool(finished.any()):
                for item, row in zip(tables.items[finished].tolist(), tables.best[finished, 0].tolist(), strict=True):
                    result[item] = self._without_end(row)
            if bool(finished.all()):
                break
            unfinished = (~finished).nonzero().flatten()
            # The rows of the cache are the beams of the first item, then those of the second, and so on; at the first
            # step an item has one row. Each new beam takes the cache row of the beam that it extends.
            beams_before = 1 if step == 1 else self.num_beams
            context.take((unfinished[:, None] * beams_before + parents[unfinished]).flatten())
            tables.take(unfinished)
            context.add_column()
            logits = self._forward(context, tokens=tables.running[:, :, -1].flatten())
        return result

    def _extend(self, tables: _BeamTables, logits: Tensor, step: int) -> Tensor:
        """Extend the running sequences by one token. Move those that end to `best`, if they are good enough.

        Args:
            logits: (I * beams, V); one beam per item at the first step.

        Returns:
            (I, beams) which of the item's earlier beams each running sequence continues.
        """
        import torch

        beams, vocabulary = self.num_beams, logits.shape[-1]
        summed = logits.log_softmax(-1).unflatten(0, tables.scores.shape) + tables.scores[:, :, None]  # (I, beams, V)
        # C = max(2, 1 + E) * beams candidates, as in transformers. At most E * beams of them end with an eos token, so
        # at least `beams` can continue.
        candidates = max(2, 1 + len(self.eos)) * beams
        top, flat = summed.flatten(1).topk(min(candidates, summed[0].numel()))  # (I, C)
        parents, tokens = flat // vocabulary, flat % vocabulary  # (I, C) the beam that is extended, and by which token
        history = tables.running.gather(1, parents[:, :, None].expand(-1, -1, step - 1))
        sequences = torch.cat([history, tokens[:, :, None]], 2)  # (I, C, step)
        stops = torch.isin(tokens, self.eos) | (step == self.max_new_tokens)  # (I, C); at the last step all end

        # The best candidates that have not ended continue.
        tables.scores, order = (top + stops * NEVER).topk(beams)
        tables.running = sequences.gather(1, order[:, :, None].expand(-1, -1, step))

        # Only the `beams` best candidates may become finished sequences. The others are needed only so that enough
        # sequences continue.
        ends = stops & (torch.arange(top.shape[1], device=top.device) < beams)
        is_full = tables.ended.all(1, keepdim=True) & (self.early_stopping is True)
        final = top / step**self.length_penalty + (is_full | ~ends) * NEVER
        padded = torch.nn.functional.pad(sequences, (0, self.max_new_tokens - step), value=PADDING)  # as wide as `best`
        tables.best_scores, index = torch.cat([tables.best_scores, final], 1).topk(beams)
        expanded = index[:, :, None].expand(-1, -1, self.max_new_tokens)
        tables.best = torch.cat([tables.best, padded], 1).gather(1, expanded)
        tables.ended = torch.cat([tables.ended, ends], 1).gather(1, index)
        return parents.gather(1, order)

    def _is_finished(self, tables: _BeamTables, step: int) -> Tensor:
        """Return (I,) whether the search for an item is over, by transformers' rule.

        It is over if all slots of `best` are filled, and the best running sequence is estimated not to beat the worst
        of them. The estimate takes the sequence's present length; with `early_stopping="never"` the length that is best
        for it, so that nothing better can be missed.
        """
        import torch

        assume_longest = self.early_stopping == "never" and self.length_penalty > 0
        # (I, 1): sums of log-probabilities are negative, so a positive length penalty favours long sequences.
        possible = tables.scores[:, :1] / (self.max_new_tokens if assume_longest else step) ** self.length_penalty
        empty = torch.full_like(tables.best_scores, NEVER)
        worst = torch.where(tables.ended, tables.best_scores.min(1, keepdim=True).values, empty)  # (I, beams)
        stops_early = tables.ended.all(1) & (self.early_stopping is True)
        return ~(possible > worst).any(1) | stops_early | (step == self.max_new_tokens)

    def _without_end(self, row: list[int]) -> list[int]:
        eos = set(self.eos.tolist())
        return [token for token in row if token != PADDING and token not in eos]
