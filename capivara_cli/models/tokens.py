"""Texts as tokens, without their padding."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


@dataclass(frozen=True)
class Tokens:
    """A ragged table: text i is `flat[offsets[i]:offsets[i + 1]]`.

    Attributes:
        flat: (total,) int32, the tokens of all texts, one text after the other, start and end tokens included.
        offsets: (N + 1,) int64, where each text begins in `flat`; the last one is the total.
        pad_id: token that fills up the shorter texts of a batch.
    """

    flat: np.ndarray
    offsets: np.ndarray
    pad_id: int

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def lengths(self) -> np.ndarray:
        """Number of tokens per text, (N,)."""
        import numpy as np

        return np.diff(self.offsets)

    def by_length(self, rows: np.ndarray) -> np.ndarray:
        """Return the positions in `rows` (B,) that sort it longest first; texts of one length keep their order."""
        import numpy as np

        return np.argsort(-self.lengths[rows], kind="stable")

    def batch(self, rows: np.ndarray) -> Tensor:
        """Return some rows (B,) as (B, longest) int64, padded to the longest of them."""
        import numpy as np
        import torch

        starts, lengths = self.offsets[rows], self.lengths[rows]
        columns = np.arange(lengths.max())  # (longest,)
        is_text = columns < lengths[:, None]  # (B, longest)
        # (B, longest). 0 where padded: any index within `flat` will do, because `pad_id` replaces its token below.
        index = np.where(is_text, starts[:, None] + columns, 0)
        return torch.from_numpy(np.where(is_text, self.flat[index], self.pad_id).astype(np.int64))
