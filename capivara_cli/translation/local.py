"""Translation models that run here: NLLB-200, M2M100, MADLAD-400 and Marian, by transformers or CTranslate2.

All four are sequence-to-sequence models; they differ in how they are told the languages.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from capivara_cli import artifacts
from capivara_cli.data.languages import code_for
from capivara_cli.errors import CapivaraError, first_line
from capivara_cli.models import hub
from capivara_cli.runtime import Runtime
from capivara_cli.translation.translator import Failure, Translator

if TYPE_CHECKING:
    import numpy as np

DEFAULT_MODELS = {
    "nllb": "facebook/nllb-200-distilled-600M",
    "m2m100": "facebook/m2m100_418M",
    "madlad": "google/madlad400-3b-mt",
    "marian": "Helsinki-NLP/opus-mt-{origin}-{target}",
}
LICENCES = {"nllb": "NLLB-200's licence is CC-BY-NC 4.0: what it translates is for non-commercial use"}
BATCH_TOKENS = {"cpu": 4096, "cuda": 32768, "mps": 8192}  # padded source tokens at once
MOST_TOKENS = 200  # of a translation, where the model's own configuration says nothing; NLLB's says this
OTHERWISE = {"num_beams": 4, "no_repeat_ngram_size": 3}  # how what came out wrong is tried once more


class Local(Translator):
    """A model of transformers, loaded when it is first needed."""

    def __init__(
        self, backend: str, model: str | None, origin: str, target: str, runtime: Runtime, *, batch_tokens: int | None
    ) -> None:
        """Load nothing yet.

        Args:
            backend: which family.
            model: name on the hub or folder; None is the family's default.
            origin: BCP-47 code of the texts' language.
            target: one of the targets: a Marian model is of one pair.
            runtime: where.
            batch_tokens: padded source tokens at once; None is the device's default.
        """
        self.backend, self.origin, self.runtime = backend, origin, runtime
        self.model = model or DEFAULT_MODELS[backend].format(origin=origin, target=target)
        self.batch_tokens = batch_tokens or BATCH_TOKENS[runtime.device.split(":")[0]]
        self._origin_code = code_for(origin, backend)
        self._parts: tuple[Any, Any] | None = None

    def check(self, target: str) -> None:
        """Whether the table has it. The model's own tokens are looked at when it is loaded."""
        code_for(target, self.backend)

    def identity(self) -> str:
        """The name, and for a folder what is in it."""
        files = hub.identity_of(self.model)
        return f"{self.model} {files}" if files else self.model

    def translate(self, texts: Sequence[str], target: str, attempt: int = 0) -> Iterator[tuple[int, str | Failure]]:
        """See `Translator`; what failed before is tried with beams and without repetitions."""
        import numpy as np

        model, tokenizer = self._load()
        prefix, start = self._told(tokenizer, target)
        tokens = tokenizer([prefix + text for text in texts], truncation=True).input_ids
        lengths = np.array([len(ids) for ids in tokens])
        order = np.argsort(-lengths, kind="stable")
        first = 0
        while first < len(order):
            size = batch_length(lengths[order], first, self.batch_tokens)
            part = order[first : first + size]
            try:
                found = self._generate(model, tokenizer, [tokens[i] for i in part], start, attempt)
            except RuntimeError as error:
                self.batch_tokens = self.runtime.halve_on_oom(error, size) * int(lengths[part[0]])
                continue
            yield from zip((int(i) for i in part), found, strict=True)
            first += size

    def _load(self) -> tuple[Any, Any]:
        if self._parts is None:
            source = hub.source_of(self.model)
            try:
                self._parts = self._load_parts(source)
            except CapivaraError:
                raise
            except ImportError as error:
                raise CapivaraError(
                    f"{self.model}: its tokenizer needs another package: {' '.join(str(error).split())[:100]}",
                    "pip install 'capivara-cli[sentencepiece]'",
                ) from error
            except Exception as error:  # a broken folder makes torch, safetensors and tokenizers raise nearly anything
                raise CapivaraError(
                    f"{self.model} cannot be loaded: {first_line(error)}", "--model, or another --backend"
                ) from error
        return self._parts

    def _load_parts(self, source: str) -> tuple[Any, Any]:
        import torch
        from transformers import AutoConfig, AutoModelForSeq2SeqLM
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        self.runtime = self.runtime.for_width(config.hidden_size)
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.runtime.precision, torch.float32)
        model = AutoModelForSeq2SeqLM.from_pretrained(source, dtype=dtype, trust_remote_code=False)
        return model.eval().to(self.runtime.device), self._tokenizer(source)

    def _tokenizer(self, source: str) -> Any:
        from transformers import AutoTokenizer

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of packages that would do better, for a person who has chosen none
            tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        if self.backend in ("nllb", "m2m100"):
            tokenizer.src_lang = self._origin_code
        return tokenizer

    def _told(self, tokenizer: Any, target: str) -> tuple[str, str | None]:
        """How the model is told the target: a prefix of the text, or the token that the translation begins with."""
        code = code_for(target, self.backend)
        token = {"nllb": code, "m2m100": f"__{code}__", "madlad": f"<2{code}>", "marian": f">>{code}<<"}[self.backend]
        if self.backend == "marian" and not any(piece.startswith(">>") for piece in tokenizer.get_vocab()):
            return "", None  # a model of one pair
        if tokenizer.convert_tokens_to_ids(token) in (None, tokenizer.unk_token_id):
            raise CapivaraError(f"{self.model} has no {token}, so it does not know {target}", "another --model")
        if self.backend in ("nllb", "m2m100"):
            return "", token
        return f"{token} ", None

    def _generate(
        self, model: Any, tokenizer: Any, tokens: list[list[int]], start: str | None, attempt: int
    ) -> list[str]:
        import torch

        batch = tokenizer.pad({"input_ids": tokens}, return_tensors="pt").to(self.runtime.device)
        options: dict[str, Any] = dict(OTHERWISE) if attempt else {}
        if start is not None:
            options["forced_bos_token_id"] = tokenizer.convert_tokens_to_ids(start)
        with torch.inference_mode():
            found = model.generate(
                input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], do_sample=False, **options
            )
        return tokenizer.batch_decode(found, skip_special_tokens=True)


class CTranslate2(Local):
    """The same models by CTranslate2: converted once into the cache, int8 on a CPU and float16 on a GPU."""

    def identity(self) -> str:
        """Fewer bits may choose other words."""
        return f"{super().identity()} ctranslate2"

    def _load_parts(self, source: str) -> tuple[Any, Any]:
        try:
            import ctranslate2
        except ImportError as error:
            raise CapivaraError(
                "--engine ctranslate2: the package is not installed", "pip install 'capivara-cli[ctranslate2]'"
            ) from error
        cuda = self.runtime.device.startswith("cuda")
        kind = "float16" if cuda else "int8"
        folder = (
            artifacts.cache_folder() / "ctranslate2" / artifacts.fingerprint(hub.identity_of(source) or source, kind)
        )
        if not (folder / "model.bin").is_file():
            with artifacts.writing(folder) as temporary:
                # quietly: the converter is no command
                ctranslate2.converters.TransformersConverter(source).convert(str(temporary), quantization=kind)
        import torch
        from transformers import GenerationConfig

        try:
            self._settings = GenerationConfig.from_pretrained(source)
        except OSError:  # a folder without one
            self._settings = GenerationConfig()
        threads = {} if cuda else {"intra_threads": torch.get_num_threads()}
        return ctranslate2.Translator(str(folder), device="cuda" if cuda else "cpu", **threads), self._tokenizer(source)

    def _generate(
        self, model: Any, tokenizer: Any, tokens: list[list[int]], start: str | None, attempt: int
    ) -> list[str]:
        options: dict[str, Any] = dict(OTHERWISE) if attempt else {"num_beams": self._settings.num_beams or 1}
        found = model.translate_batch(
            [tokenizer.convert_ids_to_tokens(ids) for ids in tokens],
            target_prefix=[[start]] * len(tokens) if start is not None else None,
            beam_size=options["num_beams"],
            no_repeat_ngram_size=options.get("no_repeat_ngram_size", 0),
            max_decoding_length=self._settings.max_length or MOST_TOKENS,
        )
        ids = [tokenizer.convert_tokens_to_ids(result.hypotheses[0]) for result in found]
        return tokenizer.batch_decode(ids, skip_special_tokens=True)


def batch_length(lengths: np.ndarray, first: int, budget: int) -> int:
    """How many texts from `first` on fit into a batch: padded to the first, which is the longest; at least one."""
    return max(budget // int(lengths[first]), 1)
