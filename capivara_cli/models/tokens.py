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
        flat: (total,) int32.
        offsets: (N + 1,) int64.
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
        index = np.where(is_text, starts[:, None] + columns, 0)  # 0 where padded: it only has to be within `flat`
        return torch.from_numpy(np.where(is_text, self.flat[index], self.pad_id).astype(np.int64))
