"""The flags of `score`."""

from __future__ import annotations

from pathlib import Path

from capivara_cli.data.options import SelectionOptions
from capivara_cli.errors import BadOption
from capivara_cli.models.options import ModelOptions
from capivara_cli.options import ImageWorkers, Machine, Resumable, Summarised, flag


class ScoreOptions(SelectionOptions, ModelOptions, ImageWorkers, Resumable, Summarised, Machine):
    """How to score captions, and which to keep."""

    section = "score"
    model_unless = ("adapter", "scored")

    scored: bool = flag("Reuse the scores in the file; load no model.", default=False)
    plot: Path | None = flag(
        "Write a histogram of the scores to this PNG file.", default=None, metavar="FILE.png", changes_result=False
    )

    def check(self) -> None:
        """Raise BadOption as `SelectionOptions` does, and if --scored is combined with flags of the model or device."""
        super().check()
        named_model = self.model or self.pretrained or self.adapter
        if self.scored and (named_model or (self.device, self.precision) != ("auto", "auto")):
            raise BadOption(
                "--scored loads no model", "leave out --model, --pretrained, --adapter, --device, --precision"
            )
