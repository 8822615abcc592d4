"""What is handed on: the cards of a merged model and of an adapter, and the folders that they describe."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.repocard import metadata_load

from capivara_cli.errors import BadOption
from capivara_cli.models import checkpoint, lora
from capivara_cli.models.clip import Clip
from capivara_cli.models.spec import ModelSpec
from capivara_cli.runtime import Runtime
from capivara_cli.training.licences import licence_of
from capivara_cli.training.merge_lora import merge_lora
from capivara_cli.training.model_card import adapter_card, plain_lines
from capivara_cli.training.options import MergeOptions
from tests.helpers import snippets

TEXTS = ["एक छोटा लाल तारा", "a large blue cross on a grey background"]
REPO = "some-org/clip-hi"

# What follows the lines of a card, to see what they have loaded.
ENCODES = """
import json, sys, torch
with torch.inference_mode():
    features = model.eval().encode_text(tokenizer(json.loads(sys.argv[1])), normalize=True)
assert preprocess is not None
assert not any(name.startswith("capivara") for name in sys.modules)
print(json.dumps(features.tolist()))
"""


def features(lines: str, cwd: Path, home: Path) -> torch.Tensor:
    """Run the lines of a card in a new process without network, and return the embeddings of TEXTS."""
    env = dict(os.environ) | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(home)}
    result = subprocess.run(
        [sys.executable, "-c", lines + ENCODES, json.dumps(TEXTS)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=env,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return torch.tensor(json.loads(result.stdout.splitlines()[-1]))


def load(name: str) -> Clip:
    return checkpoint.load(ModelSpec(name), Runtime.start("cpu", "fp32"))


@pytest.fixture(scope="module")
def for_hub(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = MergeOptions(hub_name=REPO, dataset=["some-org/scenes"])
    return merge_lora(run, tmp_path_factory.mktemp("merged") / "clip-hi", options)


def test_a_merged_folder_loads_anywhere_by_the_lines_of_its_card(run: Path, clip: Clip, tmp_path: Path) -> None:
    made = merge_lora(run, tmp_path / "made" / "clip-hi")
    for file in made.iterdir():
        assert str(tmp_path).encode() not in file.read_bytes(), file.name
    (tmp_path / "elsewhere").mkdir()
    shutil.move(made, tmp_path / "elsewhere" / "clip-hi")
    shutil.rmtree(tmp_path / "made")
    [lines] = snippets(tmp_path / "elsewhere" / "clip-hi" / "README.md")
    lora.load(clip, run)
    expected = clip.encode_texts(TEXTS)
    loaded = features(lines, tmp_path / "elsewhere", tmp_path / "home")
    torch.testing.assert_close(loaded, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(load(f"local-dir:{tmp_path}/elsewhere/clip-hi").encode_texts(TEXTS), loaded)


def test_a_merged_folder_loads_from_the_hub_by_the_name_it_was_made_for(for_hub: Path, tmp_path: Path) -> None:
    """The hub's cache on a machine that has downloaded the repository."""
    cache = tmp_path / "home" / "hub" / repo_folder_name(repo_id=REPO, repo_type="model")
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text("0" * 40)
    shutil.copytree(for_hub, cache / "snapshots" / ("0" * 40))
    from_hub, from_folder = snippets(for_hub / "README.md")
    assert f'"hf-hub:{REPO}"' in from_hub
    expected = load(f"local-dir:{for_hub}").encode_texts(TEXTS)
    loaded = features(from_hub, tmp_path, tmp_path / "home")
    torch.testing.assert_close(loaded, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(features(from_folder, for_hub.parent, tmp_path / "none"), loaded)
    ours = f"""
import sys, torch
from capivara_cli.models import checkpoint
from capivara_cli.models.spec import ModelSpec
from capivara_cli.runtime import Runtime
features = checkpoint.load(ModelSpec("hf-hub:{REPO}"), Runtime.start("cpu", "fp32")).encode_texts({TEXTS!r})
torch.save(features, sys.argv[1])
"""
    env = dict(os.environ) | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    subprocess.run([sys.executable, "-c", ours, str(tmp_path / "ours.pt")], env=env, check=True)
    torch.testing.assert_close(torch.load(tmp_path / "ours.pt", weights_only=True), expected)


@pytest.mark.parametrize("name", ["clip-hi", "a/b/c", "/home/me/clip-hi", "local-dir:clip-hi", "org/clip hi"])
def test_a_name_that_the_hub_cannot_have_is_refused(name: str) -> None:
    with pytest.raises(BadOption, match=f"{name}.*ORG/REPO"):
        MergeOptions(hub_name=name)
    with pytest.raises(BadOption, match=f"{name}.*ORG/REPO"):
        MergeOptions(dataset=["org/scenes", name])


def test_the_head_of_a_merged_models_card_is_one_that_the_hub_takes(for_hub: Path) -> None:
    card = ModelCard.load(for_hub / "README.md")
    head = metadata_load(for_hub / "README.md")
    assert head is not None
    assert "base_model" not in head  # a folder of this machine
    assert (head["license"], head["library_name"], head["language"]) == ("mit", "open_clip", ["hi"])
    assert head["datasets"] == ["some-org/scenes"]
    assert head["tags"] == ["clip", "capivara"]
    results = {result.dataset_config: result for result in card.data.eval_results or []}
    assert results.keys() == {"hi", "en"}
    assert all(
        0 < result.metric_value <= 100 and result.dataset_type == "some-org/scenes" for result in results.values()
    )
    assert card.data.to_dict()["model-index"] == head["model-index"]


def test_the_results_in_a_card_are_those_of_the_run(run: Path, tmp_path: Path) -> None:
    card = ModelCard.load(merge_lora(run, tmp_path / "clip-hi") / "README.md")
    after = json.loads((run / "run.json").read_text())["after"]
    assert {result.dataset_config: result.metric_value for result in card.data.eval_results or []} == {
        lang: pytest.approx(100 * value, abs=0.01) for lang, value in after.items()
    }
    assert "datasets" not in card.data.to_dict()


def test_a_base_model_of_the_hub_is_named_by_its_repository_and_languages_by_iso_codes() -> None:
    card = ModelCard(adapter_card(ModelSpec.parse(None), ["pt-BR", "hi"], Path("runs/pt/adapter")))
    head = card.data.to_dict()
    assert head["base_model"] == "laion/CLIP-ViT-B-32-xlm-roberta-base-laion5B-s13B-b90k"
    assert (head["base_model_relation"], head["library_name"]) == ("adapter", "peft")
    assert (head["language"], head["language_bcp47"]) == (["pt", "hi"], ["pt-BR"])
    assert 'create_model_and_transforms("xlm-roberta-base-ViT-B-32", "laion5b_s13b_b90k")' in card.text


@pytest.mark.parametrize(
    ("card", "head"),
    [
        ("# A model\n\nwithout a head\n", {}),
        ("", {}),
        ("---\nlicense: [a\n---\n# A model\n", {}),
        ("---\nlanguage: hi\n---\n# A model\n", {}),
        ("---\nlicense: cc-by-4.0\n---\n# A model\n", {"license": "cc-by-4.0"}),
        ("---\nlicense: [Apache-2.0]\n---\n", {"license": "apache-2.0"}),
        ("---\nlicense: My Licence, v2\n---\n", {"license": "other", "license_name": "my-licence-v2"}),
        (
            "---\nlicense: other\nlicense_name: fair-ai\nlicense_link: https://x.example/l\n---\n",
            {"license": "other", "license_name": "fair-ai", "license_link": "https://x.example/l"},
        ),
        ("---\nlicense: other\nlicense_link: LICENSE\n---\n", {"license": "other", "license_name": "other"}),
    ],
)
def test_the_licence_is_that_of_the_base_models_card_in_the_hubs_words(
    card: str, head: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "README.md").write_text(card)
    assert licence_of(ModelSpec(f"local-dir:{tmp_path}")) == head


def test_the_licence_of_a_base_model_of_the_hub_is_that_of_its_repositorys_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = tmp_path / repo_folder_name(repo_id="org/clip", repo_type="model") / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n# A model\n")
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text(snapshot.name)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")  # where no hub answers
    assert licence_of(ModelSpec("hf-hub:org/clip")) == {"license": "cc-by-nc-4.0"}
    assert licence_of(ModelSpec("hf-hub:org/other")) == {}
    assert licence_of(ModelSpec.parse(None)) == {"license": "mit"}


def test_a_licence_that_is_not_known_is_not_named(run: Path, base: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(base, tmp_path / "base"))
    (other / "README.md").unlink()
    folder = merge_lora(run / "adapter", tmp_path / "merged", MergeOptions(model=f"local-dir:{other}"))
    assert "license" not in ModelCard.load(folder / "README.md").data.to_dict()
    assert "so its licence holds for them too" in (folder / "README.md").read_text()


def test_an_adapters_folder_names_its_base_model_and_loads_by_the_lines_of_its_card(
    run: Path, clip: Clip, tmp_path: Path
) -> None:
    config = json.loads((run / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "local-dir:base"
    [lines] = snippets(run / "adapter" / "README.md")
    lora.load(clip, run)
    expected = clip.encode_texts(TEXTS)
    torch.testing.assert_close(features(lines, tmp_path, tmp_path / "home"), expected, rtol=0, atol=1e-5)
    assert ModelCard.load(run / "adapter" / "README.md").data.to_dict()["language"] == ["hi"]


def test_the_documentation_has_the_lines_of_the_cards() -> None:
    blocks = snippets(Path("docs/models.md"))
    lines = [plain_lines(ModelSpec("local-dir:clip-hi")), plain_lines(ModelSpec.parse(None))]
    assert all(any(part in block for block in blocks) for part in lines)


def test_the_lines_for_a_text_tower_of_open_clip_itself_are_short() -> None:
    assert plain_lines(ModelSpec("local-dir:clip-hi"), hf_text=False).splitlines()[1:] == [
        'model, _, preprocess = open_clip.create_model_and_transforms("local-dir:" + folder)',
        'tokenizer = open_clip.get_tokenizer("local-dir:" + folder)',
    ]
