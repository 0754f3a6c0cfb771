"""The miniature's model, which ships with the project, and one of its images."""
import numpy as np
import pytest

from models.inference import Segmenter, load_model
from tests.conftest import REPOSITORY
from tools.miniature.world import Scene, draw_scene

MODEL = REPOSITORY / 'tools/miniature/model.safetensors'


@pytest.fixture(scope='package')
def miniature() -> Segmenter:
    return load_model(MODEL)


@pytest.fixture(scope='package')
def scene() -> Scene:
    """Green stripes, red stripes, yellow checks and blue paint, or the like."""
    return draw_scene([11, 3])


@pytest.fixture
def image(scene) -> np.ndarray:
    return scene.image.copy()
