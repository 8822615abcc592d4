"""Local translation models: NLLB-200, M2M100, MADLAD-400 and Marian, by transformers or CTranslate2.

All four are sequence-to-sequence models. They differ in how they are told the languages.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from capivara_cli import artifacts, console
from capivara_cli.data.languages import code_for
from capivara_cli.errors import CapivaraError, first_line
from capivara_cli.models import foreign, hub
from capivara_cli.models.generation import check_generation
from capivara_cli.runtime import Runtime
from capivara_cli.translation.options import TranslateOptions
from capivara_cli.translation.translator import Failure, Translator

if TYPE_CHECKING:
    import numpy as np

DEFAULT_MODELS = {
    "nllb": "facebook/nllb-200-distilled-600M",
    "m2m100": "facebook/m2m100_418M",
    "madlad": "google/madlad400-3b-mt",
    "marian": "Helsinki-NLP/opus-mt-{origin}-{target}",
}
LICENCES = {"nllb": "NLLB-200's licence is CC-BY-NC 4.0: its translations are for non-commercial use only"}
BATCH_TOKENS = {"cpu": 4096, "cuda": 32768, "mps": 8192}  # padded source tokens per batch
MAX_NEW_TOKENS = 200  # if the model's own configuration has no limit; NLLB's says this
RETRY_GENERATION = {"num_beams": 4, "no_repeat_ngram_size": 3}  # for texts whose first translation was rejected


# `model_type` of a model's configuration -> its backend. NLLB-200 is an M2M100 with a tokenizer of its own.
FAMILIES = {"m2m_100": "m2m100", "nllb-moe": "nllb", "t5": "madlad", "marian": "marian"}


def family_of(model: str) -> str:
    """Return the backend that a model is for. Raises CapivaraError if it is of none, or not on this machine."""
    from transformers.models.auto.tokenization_auto import get_tokenizer_config

    source = hub.source_of(model)
    with foreign.loading(model, "--model FOLDER or ORG/REPO"):
        kind = foreign.load_config(source).model_type
        tokenizer = str(get_tokenizer_config(source).get("tokenizer_class"))
    if kind not in FAMILIES:
        raise CapivaraError(f"{model} is a {kind}: it does not translate", f"a model of {', '.join(DEFAULT_MODELS)}")
    return "nllb" if "Nllb" in tokenizer else FAMILIES[kind]


class Local(Translator):
    """A model of transformers. It is loaded for the first text that is not in the cache."""

    def __init__(self, options: TranslateOptions, target: str, runtime: Runtime) -> None:
        """Prepare; nothing is loaded yet.

        Args:
            options: `backend`, `model`, `origin` and `batch_tokens` are used.
            target: one of the targets, for Marian, which has one model per pair of languages.
            runtime: where the model runs.
        """
        assert options.backend is not None, "translate() resolves it"
        self.backend = options.backend
        self.model = options.model or DEFAULT_MODELS[self.backend].format(origin=options.origin, target=target)
        self.runtime = runtime
        self.batch_tokens = options.batch_tokens or BATCH_TOKENS[runtime.device.split(":")[0]]
        self._origin_code = code_for(options.origin, self.backend)
        self._loaded: tuple[Any, Any] | None = None

    def check(self, target: str) -> None:
        """See `Translator`. Whether the model's tokenizer has the language is checked when it is loaded."""
        code_for(target, self.backend)

    def identity(self) -> str:
        """See `Translator`."""
        files = hub.identity_of(self.model)
        return f"{self.model} {files}" if files else self.model

    def translate(self, texts: Sequence[str], target: str, attempt: int = 0) -> Iterator[tuple[int, str | Failure]]:
        """See `Translator`. Texts that were tried before are generated with RETRY_GENERATION."""
        import numpy as np

        if self._loaded is None:
            self._loaded = self._load()
        model, tokenizer = self._loaded
        prefix, first_token = self._target_marker(tokenizer, target)
        tokens = tokenizer([prefix + text for text in texts], truncation=True).input_ids
        lengths = np.array([len(ids) for ids in tokens])
        # Texts of about the same length share a batch, so little is padded. The longest come first: if memory runs
        # out, it does so at once.
        order = np.argsort(-lengths, kind="stable")
        start = 0
        while start < len(order):
            size = batch_length(lengths[order], start, self.batch_tokens)
            indices = order[start : start + size]
            try:
                results = self._generate(model, tokenizer, [tokens[i] for i in indices], first_token, attempt)
            except RuntimeError as error:
                self.batch_tokens = self.runtime.halve_on_oom(error, size) * int(lengths[indices[0]])
                continue
            yield from zip(indices.tolist(), results, strict=True)
            start += size

    def _load(self) -> tuple[Any, Any]:
        """Return model and tokenizer. Raises CapivaraError when they cannot be loaded."""
        from transformers import AutoModelForSeq2SeqLM
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        source = hub.source_of(self.model)
        with foreign.loading(self.model, "--model, or another --backend"):
            config = foreign.load_config(source)
            if files := hub.weights_in(source):
                foreign.check_size(lambda: AutoModelForSeq2SeqLM.from_config(config), self.model, files)
            self.runtime = self.runtime.for_width(config.hidden_size)
            self._generation = _read_generation(source)
            check_generation(self._generation, self.model)
            try:
                return self._load_model(source), self._load_tokenizer(source)
            except ImportError as error:
                raise CapivaraError(
                    f"{self.model}: its tokenizer needs another package: {' '.join(str(error).split())[:100]}",
                    "pip install 'capivara-cli[sentencepiece]'",
                ) from error

    def _load_model(self, source: str) -> Any:
        from transformers import AutoModelForSeq2SeqLM

        model = AutoModelForSeq2SeqLM.from_pretrained(source, dtype=self.runtime.dtype, trust_remote_code=False)
        return model.eval().to(self.runtime.device)

    def _load_tokenizer(self, source: str) -> Any:
        from transformers import AutoTokenizer

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about packages that it recommends; the user did not choose any
            tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        if self.backend in ("nllb", "m2m100"):
            tokenizer.src_lang = self._origin_code
        return tokenizer

    def _target_marker(self, tokenizer: Any, target: str) -> tuple[str, str | None]:
        """Return how the model is told the target: a prefix of each text, and the translation's first token."""
        code = code_for(target, self.backend)
        token = {"nllb": code, "m2m100": f"__{code}__", "madlad": f"<2{code}>", "marian": f">>{code}<<"}[self.backend]
        if self.backend == "marian" and not any(piece.startswith(">>") for piece in tokenizer.get_vocab()):
            return "", None  # a model of one pair of languages
        if tokenizer.convert_tokens_to_ids(token) in (None, tokenizer.unk_token_id):
            raise CapivaraError(f"{self.model} has no {token}, so it does not know {target}", "another --model")
        return ("", token) if self.backend in ("nllb", "m2m100") else (f"{token} ", None)

    def _generate(
        self, model: Any, tokenizer: Any, tokens: list[list[int]], first_token: str | None, attempt: int
    ) -> list[str]:
        import torch

        batch = tokenizer.pad({"input_ids": tokens}, return_tensors="pt").to(self.runtime.device)
        generation: dict[str, Any] = dict(RETRY_GENERATION) if attempt else {}
        if first_token is not None:
            generation["forced_bos_token_id"] = tokenizer.convert_tokens_to_ids(first_token)
        with torch.inference_mode():
            output = model.generate(
                input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], do_sample=False, **generation
            )
        return tokenizer.batch_decode(output, skip_special_tokens=True)


class CTranslate2(Local):
    """The same models by CTranslate2: converted once into the cache; int8 on a CPU, float16 on a GPU."""

    def identity(self) -> str:
        """See `Translator`. Quantised models get their own key: they may translate differently."""
        return f"{super().identity()} ctranslate2"

    def _load_model(self, source: str) -> Any:
        try:
            import ctranslate2
        except ImportError as error:
            raise CapivaraError(
                "--engine ctranslate2: the package is not installed", "pip install 'capivara-cli[ctranslate2]'"
            ) from error
        import torch

        on_gpu = self.runtime.device.startswith("cuda")
        kind = "float16" if on_gpu else "int8"
        key = artifacts.fingerprint(hub.identity_of(source) or source, kind)
        folder = artifacts.cache_folder() / "ctranslate2" / key

        def convert() -> None:
            with artifacts.writing(folder) as temporary:
                ctranslate2.converters.TransformersConverter(source).convert(str(temporary), quantization=kind)

        def open_converted() -> Any:
            threads = {} if on_gpu else {"intra_threads": torch.get_num_threads()}
            return ctranslate2.Translator(str(folder), device="cuda" if on_gpu else "cpu", **threads)

        if not (folder / "model.bin").is_file():
            convert()
        try:
            return open_converted()
        except RuntimeError as error:
            if "out of memory" in str(error):
                raise
            console.say(f"note: {folder} is damaged ({first_line(error)}): the model is converted again")
            convert()
            return open_converted()

    def _generate(
        self, model: Any, tokenizer: Any, tokens: list[list[int]], first_token: str | None, attempt: int
    ) -> list[str]:
        generation = RETRY_GENERATION if attempt else {"num_beams": self._generation.num_beams or 1}
        results = model.translate_batch(
            [tokenizer.convert_ids_to_tokens(ids) for ids in tokens],
            target_prefix=[[first_token]] * len(tokens) if first_token is not None else None,
            beam_size=generation["num_beams"],
            no_repeat_ngram_size=generation.get("no_repeat_ngram_size", 0),
            max_decoding_length=self._generation.max_length or MAX_NEW_TOKENS,
        )
        ids = [tokenizer.convert_tokens_to_ids(result.hypotheses[0]) for result in results]
        return tokenizer.batch_decode(ids, skip_special_tokens=True)


def _read_generation(source: str) -> Any:
    """Return a model's generation_config.json; the library's defaults if it has none."""
    from transformers import GenerationConfig

    try:
        return GenerationConfig.from_pretrained(source)
    except OSError:
        return GenerationConfig()


def batch_length(lengths: np.ndarray, start: int, budget: int) -> int:
    """Return how many texts from `start` on fit into a batch of `budget` padded tokens; at least one.

    Args:
        lengths: (N,) tokens of each text, descending: all are padded to the first one's length.
    """
    return max(budget // int(lengths[start]), 1)
