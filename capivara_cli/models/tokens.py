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
        pad_id: what short texts of a batch are filled with.
    """

    flat: np.ndarray
    offsets: np.ndarray
    pad_id: int

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def lengths(self) -> np.ndarray:
        """(N,) tokens of each text."""
        import numpy as np

        return np.diff(self.offsets)

    def by_length(self, rows: np.ndarray) -> np.ndarray:
        """Places in `rows` in order of falling length; texts of one length in the order in which they came."""
        import numpy as np

        return np.argsort(-self.lengths[rows], kind="stable")

    def batch(self, rows: np.ndarray) -> Tensor:
        """(B,) rows -> (B, longest) int64, padded to the longest of them."""
        import numpy as np
        import torch

        starts, lengths = self.offsets[rows], self.lengths[rows]
        columns = np.arange(lengths.max())  # (longest,)
        inside = columns < lengths[:, None]  # (B, longest)
        places = np.where(inside, starts[:, None] + columns, 0)
        return torch.from_numpy(np.where(inside, self.flat[places], self.pad_id).astype(np.int64))

    def vocabulary(self) -> list[int]:
        """The distinct token ids, ascending."""
        import numpy as np

        return [int(token) for token in np.unique(self.flat)]
