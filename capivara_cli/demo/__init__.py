"""The demo: a small world of drawn scenes, the small models that know it, and the whole job done in it."""

from pathlib import Path

MODELS = Path(__file__).parent / "models"

BASE = MODELS / "base"
"""The shipped base model: a CLIP that knows the world in English and hardly in other languages."""

CAPTIONER = MODELS / "captioner"
"""The shipped captioner: a BLIP-2 that describes the world in English."""

TRANSLATOR = MODELS / "translator"
"""The shipped translator: an NLLB from English to the world's other languages."""

TRAIN_IMAGES = 4000
TEST_IMAGES = 500
