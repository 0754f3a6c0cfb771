"""Which CLIP a file holds; with its weights our encoders compute the same as open_clip's."""
import open_clip
import pytest
import safetensors.torch
import torch

from models import CLIPVisionEncoder
from models.clip_layers import GELUS
from models.text_encoder import VOCABULARY, tokenize
from models.weights import files
from models.weights.clip import INTEGERS_OF_OPENAI, load_vision_tower
from models.weights.clip_variant import known_variants, text_encoder_of, variant_of
from models.weights.files import Checkpoint
from models.weights.names import own_names
from tests.clip_files import VIT_B_16, VIT_B_32, VIT_L_14, clip_by_shape, clip_weights
from tests.models.naive import close

SHAPES = {'ViT-B-16': VIT_B_16, 'ViT-B-32': VIT_B_32, 'ViT-L-14': VIT_L_14}
TINY = {'embed_dim': 32, 'vision_cfg': {'image_size': 32, 'layers': 2, 'width': 128, 'patch_size': 8},
        'text_cfg': {'context_length': 77, 'vocab_size': VOCABULARY, 'width': 64, 'heads': 1, 'layers': 2}}


# ---- the CLIP in a file

@pytest.mark.parametrize('name', SHAPES)
def test_a_file_of_openai(name):
    sizes = SHAPES[name]
    variant = variant_of(clip_by_shape(openai=True, **sizes))
    assert variant.vision == {'patch_size': sizes['patch'], 'width': sizes['width'], 'layers': sizes['layers'],
                              'output_dim': sizes['embed'], 'heads': sizes['width'] // 64, 'gelu': 'quick'}
    assert variant.text == {'context_length': 77, 'vocab_size': VOCABULARY, 'transformer_width': sizes['text_width'],
                            'transformer_layers': 12, 'embed_dim': sizes['embed'], 'gelu': 'quick',
                            'transformer_heads': sizes['text_width'] // 64}
    assert variant == known_variants()[f'{name}/openai'] and variant.resolution == 224


@pytest.mark.parametrize(('name', 'gelu'), [
    ('ViT-B-16/laion2b_s34b_b88k', 'plain'), ('ViT-B-16/dfn2b', 'quick'), ('ViT-B-32/laion400m_e32', 'quick'),
    ('ViT-B-32-quickgelu/laion400m_e32', 'quick')])
def test_a_name_implies_the_gelu(name, gelu):
    shape = SHAPES[name.split('/')[0].removesuffix('-quickgelu')]
    variant = variant_of(clip_by_shape(**shape), name=name)
    assert variant.vision['gelu'] == variant.text['gelu'] == gelu
    assert variant_of(clip_by_shape(**shape), name=name, gelu='plain').vision['gelu'] == 'plain', 'an option overrides'


def test_every_known_name_is_a_model_that_loads():
    """Of open_clip's models by their names: the tensors are those of our encoders."""
    for name in dict.fromkeys(name.split('/')[0] for name in known_variants()):
        variant = next(known for other, known in known_variants().items() if other.startswith(f'{name}/'))
        with torch.device('meta'):
            theirs = open_clip.create_model(name, device='meta').state_dict()
            ours = CLIPVisionEncoder(input_resolution=variant.resolution, region_level_bridge_size=0, **variant.vision)
        expected = {f'visual.{key}': value.shape for key, value in ours.state_dict().items()
                    if 'prompt' not in key and 'bridge' not in key}
        assert {key: value.shape for key, value in theirs.items() if key.startswith('visual.')} == expected


def test_the_question():
    with pytest.raises(ValueError, match='do not show which GELU') as error:
        variant_of(clip_by_shape(**VIT_L_14))
    quick, plain = str(error.value).splitlines()[1:3]
    assert 'and QuickGELU: ViT-L-14/openai, ViT-L-14/metaclip_400m' in quick
    assert 'and plain GELU: ViT-L-14/laion400m_e31' in plain and 'and 4 more' in plain
    assert 'model.clip_name=MODEL/WEIGHTS' in str(error.value) and '--clip-name' in str(error.value)
    with pytest.raises(ValueError, match=r'(?s)which GELU.*model\.backbone\.gelu=quick') as error:
        variant_of(Checkpoint(_open_clip_format(), {}, 'mine.pt'))
    assert 'with these sizes' not in str(error.value)


def _open_clip_format(**sizes: int) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in clip_weights(**sizes).items() if name not in INTEGERS_OF_OPENAI}


@pytest.mark.parametrize(('name', 'message'), [
    ('ViT-B-16/openai', 'is not ViT-B-16/openai: vision patch_size 16, in the file 32'),
    ('ViT-B-32-256/datacomp_s34b_b86k', 'vision image size 256, in the file 224'),
    ('ViT-B-32/laion3b', 'MODEL/WEIGHTS, .*ViT-B-32 has the weights openai, laion400m_e31'),
    ('ViT-B-33/openai', 'not a known name of a CLIP ViT.*: ViT-B-32, '), ('RN50/openai', 'not a known name of a CLIP'),
    ('ViT-B-32/laion2b_s34b_b79k', "in OpenAI's format.*laion2b_s34b_b79k has plain GELU")])
def test_wrong_names(name, message):
    with pytest.raises(ValueError, match=message):
        variant_of(clip_by_shape(openai=name.endswith('b79k'), **VIT_B_32), name=name)


@pytest.mark.parametrize('model', ['RN50', 'ViT-B-16-SigLIP', 'coca_ViT-B-32', None])
def test_other_models(model):
    weights = {'fc.weight': torch.zeros(2)}
    if model:
        with torch.device('meta'):
            weights = own_names(open_clip.create_model(model, device='meta').state_dict())
    with pytest.raises(ValueError, match=r'other.pt is not a CLIP ViT: supported are'):
        variant_of(Checkpoint(weights, {}, 'other.pt'), gelu='plain')


def test_another_tokenizer():
    file = Checkpoint(clip_weights(vocabulary=60), {}, 'other.pt')
    with pytest.raises(ValueError, match='vocabulary of 60 tokens.*another tokenizer'):
        text_encoder_of(file)


@pytest.mark.parametrize(('model', 'heads', 'gelu'), [
    ({'backbone': {'gelu': 'plain'}, 'pretrained': 'a.pt', 'pretrained_text': 'a.pt'}, 2, 'plain'),
    ({'backbone': {'gelu': 'plain'}, 'pretrained': 'a.pt', 'pretrained_text': 'b.pt'}, 2, 'quick'),
    ({'backbone': {'gelu': 'plain'}, 'text_encoder': {'transformer_heads': 4, 'gelu': 'quick'}}, 4, 'quick'),
    ({'clip_name': 'ViT-B-33/openai', 'text_encoder': None, 'backbone': {}}, None, None), ({}, 2, 'quick')])
def test_options_of_a_config(model, heads, gelu):
    clip = Checkpoint(clip_weights(text_width=128, text_layers=1), {}, 'openai.pt')
    if heads is None:
        with pytest.raises(ValueError, match='not a known name'):
            text_encoder_of(clip, model)
        return
    encoder = text_encoder_of(clip, model)
    block = encoder.transformer.resblocks[0]
    assert block.attn.heads == heads and isinstance(block.mlp.gelu, GELUS[gelu])
    assert not encoder.training and not any(parameter.requires_grad for parameter in encoder.parameters())


# ---- the same numbers as open_clip

@pytest.fixture(params=['quick', 'plain'])
def gelu(request):
    return request.param


@pytest.fixture
def theirs(gelu) -> open_clip.CLIP:
    """open_clip's model of a small CLIP with random weights, large enough to tell the two GELUs apart."""
    torch.manual_seed(1)
    model = open_clip.CLIP(**TINY, quick_gelu=gelu == 'quick').eval().requires_grad_(False)
    for name, value in model.state_dict().items():
        value.add_(0.1 * torch.randn_like(value) if name.endswith(('bias', 'weight')) else 0)
    return model


@pytest.mark.parametrize('write', ['safetensors', 'epoch.pt', 'custom_text.pt'])
def test_text_embeddings_are_those_of_open_clip(theirs, gelu, tmp_path, write):
    weights, file = theirs.state_dict(), tmp_path / f'open_clip_model.{write}'
    if write == 'safetensors':
        safetensors.torch.save_file(weights, file)
    elif write == 'epoch.pt':
        weights = {f'module.{name}': value for name, value in weights.items()}
        torch.save({'epoch': 3, 'name': 'run', 'state_dict': weights, 'optimizer': {}}, file)
    else:
        torch.save(open_clip.CustomTextCLIP(**TINY, init_logit_bias=-10).state_dict() | {
            name if name.startswith(('visual.', 'logit_')) else f'text.{name}': value
            for name, value in weights.items()}, file)
    clip = files.read(file)
    tokens = tokenize(['a photo of a cat', 'two dogs, and a sofa in the garden'])
    ours, other = (text_encoder_of(clip, {'text_encoder': {'gelu': kind}})
                   for kind in (gelu, {'quick': 'plain', 'plain': 'quick'}[gelu]))
    assert close(ours(tokens), theirs.encode_text(tokens), 1e-5)
    assert not close(other(tokens), theirs.encode_text(tokens), 1e-4), 'the test cannot distinguish them'


def test_the_image_tower_is_that_of_open_clip(theirs, gelu):
    """Without prompts and regions, and with the class embedding once: CLIP-RC adds it twice."""
    clip = Checkpoint(theirs.state_dict(), {}, 'clip.bin')
    vision = variant_of(clip, gelu=gelu).vision
    encoder = CLIPVisionEncoder(input_resolution=32, num_tokens=0, region_level_bridge_size=0, **vision).eval()
    load_vision_tower(encoder, clip)
    encoder.prompt_norm = torch.nn.Identity()
    with torch.no_grad():
        encoder.class_embedding /= 2
        images = torch.randn(2, 3, 32, 32)
        assert close(encoder(images).cls, theirs.encode_image(images, normalize=True), 1e-5)
