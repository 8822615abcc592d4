"""The cases: command lines as a person types them, in a folder with the files of `inputs.py`.

A case is one line, or several that follow each other. Every file that it writes is compared, and what it prints to
standard output; messages on standard error are not. `--views` is missing: augmentation depends on where the images are.
"""

from __future__ import annotations

BASE = "--model local-dir:models/base"
OTHER = "--model local-dir:models/other --baseline local-dir:models/base"
CAPTIONER = "--model models/captioner --prefixes prefixes.yaml --workers 0"
TRANSLATOR = "--backend nllb --model models/translator"
TRAIN = f"--data train.jsonl {BASE} --set optimizer.warmup_steps=2 --set eval_every=6 --set data.val_share=0.2"
SHORT = f"{TRAIN} --batch-size 32 --max-steps 4 --lr 3e-3"

IMPORT = {
    "comma": "import comma.csv -o out.jsonl",
    "semicolon": "import --format csv semicolon.csv -o out.jsonl",
    "bar": "import bar.csv -o out.jsonl",
    "tsv-quoted": "import quoted.tsv -o out.jsonl",
    "tsv-plain": "import --format tsv plain.tsv -o out.jsonl",
    "encoding": "import latin.csv --encoding latin-1 -o out.jsonl",
    "utf16": "import utf16.csv --lang hi -o out.jsonl",
    "languages-and-labels": "import wide.csv --images photos -o out.jsonl",
    "column-names": "import named.csv --column image=a --column caption=c --column de=b -o out.jsonl",
    "column-numbers": (
        "import --format tsv flickr.token --column image=1 --column caption=2 --images photos -o out.jsonl"
    ),
    "cc3m": "import addresses.tsv --images beside -o out.jsonl",
    "cc3m-shards": "import --format cc3m addresses.tsv --images shards -o out.jsonl",
    "coco": "import coco.json --images photos -o out.jsonl",
    "karpathy": "import karpathy.json --images photos -o out.jsonl",
    "karpathy-split": "import --format karpathy karpathy.json --images photos --split test -o out.jsonl",
    "pracegover": "import pracegover.json --images photos --lang pt -o out.jsonl",
    "pracegover-split": "import pracegover.json --images photos --lang pt --split val -o out.jsonl",
    "xm3600": "import xm -o out.jsonl",
    "xtd": "import xtd --images photos -o out.jsonl",
    "flickr30k-200": "import flickr200 --images photos -o out.jsonl",
    "folder": "import beside --lang xh -o out.jsonl",
    "classes": "import classes -o out.jsonl",
    "no-labels": "import classes --no-labels -o out.jsonl",
    "labels": "import albums --labels -o out.jsonl",
    "folder-split": "import --format folder parts --split test -o out.jsonl",
    "imagefolder": "import hub -o out.jsonl",
    "webdataset": 'import "shards/{00000..00001}.tar" --lang pt -o out.jsonl',
    "webdataset-capivara": "import published.tar -o out.jsonl",
    "parquet": "import rows --split train -o out.jsonl",
    "parquet-names": "import names.parquet -o out.jsonl",
    "jsonl": "import broken.jsonl -o out.jsonl",
    "stdout": "import comma.csv",
    "verify": "import photos --verify --workers 0 -o out.jsonl",
    "verify-in-workers": "import photos --verify --dedupe --workers 2 -o out.jsonl",
    "dedupe": "import photos --dedupe --workers 0 -o out.jsonl",
    "translations-lines": "import captions.jsonl --translations lines.txt --to pt -o out.jsonl",
    "translations-text": "import captions.jsonl --translations by-text.csv --to pt -o out.jsonl",
    "translations-number": "import captions.jsonl --translations by-number.tsv --to pt -o out.jsonl",
    "translations-xlsx": "import captions.jsonl --translations by-text.xlsx --to pt -o out.jsonl",
}

EXPORT = {
    "webdataset": ["export webdataset odd.jsonl -o out --shard-size 2", "import out -o back.jsonl"],
    "webdataset-lang": ["export webdataset english.jsonl --lang en --prefix train- --shard-size 5 -o out"],
    "imagefolder": ["export imagefolder odd.jsonl --lang hi -o out", "import out -o back.jsonl"],
    "csv": ["export csv odd.jsonl -o out.csv", "import out.csv -o back.jsonl"],
    "csv-lang": ["export csv scenes.jsonl --lang hi -o out.csv"],
    "csv-stdout": ["export csv english.jsonl --lang en -o -"],
    "tsv": ["export csv odd.jsonl --lang en -o out.tsv", "import --format tsv out.tsv -o back.jsonl"],
    "captions-txt": ["export captions.txt odd.jsonl --lang en -o out.txt"],
}

CAPTION = {
    "greedy": f"caption bare.jsonl {CAPTIONER} -o out.jsonl",
    "beams": f"caption bare.jsonl {CAPTIONER} --num-beams 2 --max-new-tokens 30 --batch-size 4 -o out.jsonl",
    "folder-stdout": f"caption beside {CAPTIONER}",
}

TRANSLATE = {
    "records": f"translate english.jsonl --to hi,xh {TRANSLATOR} -o out.jsonl",
    "batch-tokens": f"translate english.jsonl --to hi --batch-tokens 40 --memory none {TRANSLATOR}",
    "classes-yaml": f"translate sentences.yaml --to hi {TRANSLATOR} -o out.yaml",
    "classes-json": f"translate sentences.json --to xh {TRANSLATOR} -o out.json",
}

SCORE = {
    "plain": f"score mixed.jsonl {BASE} -o out.jsonl",
    "by-english": f"score mixed.jsonl --lang hi --by en --min-score 0.9 {BASE} -o out.jsonl",
    "top-k": f"score mixed.jsonl --lang en --top-k 1 {BASE} -o out.jsonl",
    "diverse": f"score mixed.jsonl --lang en,hi --diverse 0.3 --min-captions 1 {BASE} -o out.jsonl",
    "pair-score": f"score mixed.jsonl --lang en --pair-score 0.8 --human crowd {BASE} -o out.jsonl",
    "keep-all": f"score mixed.jsonl --lang hi --by en --min-score 0.9 --keep-all {BASE} -o out.jsonl",
    "scored": "score scored.jsonl --scored --min-score 0.15 --top-k 3 --diverse 0.3 --min-captions 2 -o out.jsonl",
    "scored-by": "score scored.jsonl --scored --lang hi --by en --first 4 --min-score 0.1 -o out.jsonl",
    "scored-pairs": "score scored.jsonl --scored --pair-score 0.2 --keep-all",
}

TRAINING = {
    "lora": [
        f"train --lora --lang hi {TRAIN} --batch-size 48 --max-steps 12 --lr 5e-3 -o run",
        "merge-lora run -o merged",
        "merge-lora run -o half --scale 0.5",
        "retrieve-eval --data test.jsonl --lang hi --adapter run --ranks ranks.jsonl -o result.json",
    ],
    "lora-opt": [
        f"train --recipe capivara-opt --lang xh --keep en:0.5 {SHORT} --val test.jsonl --micro-batch 16 -o run",
    ],
    "full": [
        f"train --full --lang hi {SHORT} -o run",
        "merge-lora run -o half --scale 0.5 --dtype float16",
    ],
}

EVALUATION = {
    "retrieval": f"retrieve-eval --data test.jsonl --lang hi --lang en {OTHER} -o result.json --ranks ranks.jsonl",
    "retrieval-several": f"retrieve-eval --data scenes.jsonl --lang en {BASE} --ranks ranks.jsonl",
    "classification": f"classify-eval --data scenes.jsonl --classes shapes.yaml --lang en,hi {OTHER} -o result.json"
    " --predictions predictions.jsonl --per-class classes.csv",
    "classification-several": f"classify-eval --data several.jsonl --classes shapes.yaml --lang en {BASE}"
    " --predictions predictions.jsonl --per-class classes.csv -o result.json",
    "classification-folder": f"classify-eval --data classes --lang en {BASE} --metric mean_per_class_recall"
    " -o result.json",
    "classification-labels": f"classify-eval --data scenes.jsonl --lang en {BASE}",
}

CASES: dict[str, list[str]] = {
    f"{group}-{name}": [lines] if isinstance(lines, str) else lines
    for group, cases in (
        ("import", IMPORT),
        ("export", EXPORT),
        ("caption", CAPTION),
        ("translate", TRANSLATE),
        ("score", SCORE),
        ("train", TRAINING),
        ("eval", EVALUATION),
    )
    for name, lines in cases.items()
}
