from __future__ import annotations

import googletrans
import pytest
import regex
from transformers.models.m2m_100.tokenization_m2m_100 import FAIRSEQ_LANGUAGE_CODES as M2M100
from transformers.models.nllb.tokenization_nllb import FAIRSEQ_LANGUAGE_CODES as NLLB

from capivara_cli.data.languages import BACKENDS, bcp47, code_for, find, table
from capivara_cli.errors import CapivaraError
from capivara_cli.translation.options import TranslateOptions


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("hi", "hi"),
        ("pt-BR", "pt"),
        ("PT_br", "pt"),
        ("zh", "zh"),
        ("zh-TW", "zh-Hant"),
        ("zh-Hant-HK", "zh-Hant"),
        ("no", "nb"),
        ("sr-Latn", "sr"),
    ],
)
def test_a_code_finds_its_language_and_a_variant_the_language_it_belongs_to(code: str, expected: str) -> None:
    language = find(code)
    assert language is not None
    assert language.code == expected


def test_the_codes_are_those_in_the_libraries() -> None:
    known = {
        "google": set(googletrans.LANGUAGES),
        "nllb": set(NLLB),
        "m2m100": set(M2M100["m2m100"]),
    }
    for backend, codes in known.items():
        ours = [language.codes[backend] for language in table().values() if backend in language.codes]
        assert set(ours) <= codes
        assert len(ours) == len(set(ours))
        assert len(ours) > 0.97 * len(codes)


@pytest.mark.parametrize(
    ("code", "codes"),
    [
        ("hi", ("hi", "hin_Deva", "hi", "hi", "hin")),
        ("xh", ("xh", "xho_Latn", "xh", "xh", "xho")),
        ("pt", ("pt", "por_Latn", "pt", "pt", "por")),
        ("yo", ("yo", "yor_Latn", "yo", "yo", "yor")),
        ("zh", ("zh-cn", "zho_Hans", "zh", "zh", "cmn_Hans")),
    ],
)
def test_each_backend_has_its_own_code(code: str, codes: tuple[str, ...]) -> None:
    assert tuple(code_for(code, backend) for backend in BACKENDS) == codes


def test_scripts_are_known_to_unicode() -> None:
    for language in table().values():
        for script in language.scripts:
            regex.compile(rf"\p{{Script={script}}}")


def test_an_error_names_the_backends_that_know_the_language() -> None:
    with pytest.raises(CapivaraError, match="m2m100 does not know Maithili") as error:
        code_for("mai", "m2m100")
    assert "google, nllb" in error.value.message


@pytest.mark.parametrize(
    ("typed", "code"),
    [
        ("HI", "hi"),
        ("hindi", "hi"),
        ("Hindi", "hi"),
        ("hin", "hi"),
        ("hin_Deva", "hi"),
        ("pt_BR", "pt-BR"),
        ("POR", "pt"),
        ("zh-hant-hk", "zh-Hant-HK"),
        ("zh-hans", "zh-Hans"),
        ("ger", "de"),
        ("deu", "de"),
        ("fas", "fa"),
        ("Maori", "mi"),
        ("es-419", "es-419"),
        ("no", "no"),
        ("qq", "qq"),
        ("my words", "my words"),
    ],
)
def test_a_language_is_understood_in_any_spelling(typed: str, code: str) -> None:
    assert bcp47(typed) == code


def test_every_name_and_code_of_the_table_is_understood() -> None:
    for language in table().values():
        assert bcp47(language.code) == bcp47(language.code.upper()) == language.code
        if language.name.lower() not in table():  # ga is Irish, and Ga another language
            assert bcp47(language.name) == language.code


def test_how_a_language_was_understood_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    options = TranslateOptions(to=["Xhosa", "zu"], origin="pt_br")
    assert (options.to, options.origin) == (("xh", "zu"), "pt-BR")
    assert options.replace(to=["Xhosa"]).to == ("xh",)
    said = capsys.readouterr().err.splitlines()
    assert said == ["language Xhosa: xh (Xhosa)", "language pt_br: pt-BR (Portuguese)"]


def test_an_unknown_language_is_an_error_with_a_hint() -> None:
    with pytest.raises(CapivaraError, match="the language qq is not known") as error:
        code_for("qq", "google")
    assert "--languages" in (error.value.hint or "")
