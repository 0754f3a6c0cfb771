"""Random-weight CLIP files in several formats. Run it to write one: `python tests/clip_files.py FILE`."""
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]
from models.weights.clip import INTEGERS_OF_OPENAI  # noqa: E402
from models.weights.files import Checkpoint  # noqa: E402

VIT_B_16 = {'width': 768, 'layers': 12, 'embed': 512, 'patch': 16, 'resolution': 224, 'text_width': 512,
            'text_layers': 12, 'vocabulary': 49408}
VIT_B_32 = VIT_B_16 | {'patch': 32}
VIT_L_14 = VIT_B_16 | {'width': 1024, 'layers': 24, 'embed': 768, 'patch': 14, 'text_width': 768}


def clip_weights(*, width: int = 64, layers: int = 3, embed: int = 32, patch: int = 16, resolution: int = 32,
                 text_width: int = 32, text_layers: int = 2, vocabulary: int = 49408,
                 seed: int = 0) -> dict[str, Tensor]:
    """State dict with OpenAI's names, float16 as theirs, the three integers included."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int, std: float) -> Tensor:
        return (std * torch.randn(shape, generator=generator)).half()

    def norm(name: str, size: int) -> dict[str, Tensor]:
        return {f'{name}.weight': torch.ones(size).half(), f'{name}.bias': torch.zeros(size).half()}

    def tower(prefix: str, size: int, depth: int) -> dict[str, Tensor]:
        weights = {}
        for block in (f'{prefix}transformer.resblocks.{i}' for i in range(depth)):
            std = size**-0.5
            weights |= {f'{block}.attn.in_proj_weight': normal(3 * size, size, std=std),
                        f'{block}.attn.in_proj_bias': torch.zeros(3 * size).half(),
                        f'{block}.attn.out_proj.weight': normal(size, size, std=std * (2 * depth)**-0.5),
                        f'{block}.attn.out_proj.bias': torch.zeros(size).half(),
                        f'{block}.mlp.c_fc.weight': normal(4 * size, size, std=(2 * size)**-0.5),
                        f'{block}.mlp.c_fc.bias': torch.zeros(4 * size).half(),
                        f'{block}.mlp.c_proj.weight': normal(size, 4 * size, std=std * (2 * depth)**-0.5),
                        f'{block}.mlp.c_proj.bias': torch.zeros(size).half()}
            weights |= norm(f'{block}.ln_1', size) | norm(f'{block}.ln_2', size)
        return weights

    grid = resolution // patch
    return {
        'visual.class_embedding': normal(width, std=width**-0.5),
        'visual.positional_embedding': normal(1 + grid**2, width, std=width**-0.5),
        'visual.proj': normal(width, embed, std=width**-0.5),
        'visual.conv1.weight': normal(width, 3, patch, patch, std=(3 * patch**2)**-0.5),
        **norm('visual.ln_pre', width), **norm('visual.ln_post', width), **tower('visual.', width, layers),
        'positional_embedding': normal(77, text_width, std=0.01),
        'text_projection': normal(text_width, embed, std=text_width**-0.5),
        'token_embedding.weight': normal(vocabulary, text_width, std=0.02),
        'logit_scale': torch.tensor(4.6).half(),
        **norm('ln_final', text_width), **tower('', text_width, text_layers),
        'input_resolution': torch.tensor(resolution), 'context_length': torch.tensor(77),
        'vocab_size': torch.tensor(vocabulary),
    }


def hugging_face_weights(*, width: int = 64, layers: int = 2, embed: int = 24, patch: int = 8, resolution: int = 16,
                         text_width: int = 32, text_layers: int = 2, vocabulary: int = 49408) -> dict[str, Tensor]:
    """State dict with the names and shapes of transformers' CLIPModel; its values need no generator."""
    def norm(name: str, size: int) -> dict[str, tuple[int, ...]]:
        return {f'{name}.weight': (size,), f'{name}.bias': (size,)}

    def linear(name: str, into: int, out: int) -> dict[str, tuple[int, ...]]:
        return {f'{name}.weight': (out, into), f'{name}.bias': (out,)}

    def tower(prefix: str, size: int, depth: int) -> dict[str, tuple[int, ...]]:
        shapes = {}
        for layer in (f'{prefix}.encoder.layers.{index}' for index in range(depth)):
            for kind in ('k', 'v', 'q', 'out'):
                shapes |= linear(f'{layer}.self_attn.{kind}_proj', size, size)
            shapes |= norm(f'{layer}.layer_norm1', size) | norm(f'{layer}.layer_norm2', size)
            shapes |= linear(f'{layer}.mlp.fc1', size, 4 * size) | linear(f'{layer}.mlp.fc2', 4 * size, size)
        return shapes

    shapes = {
        'logit_scale': (),
        'text_model.embeddings.token_embedding.weight': (vocabulary, text_width),
        'text_model.embeddings.position_embedding.weight': (77, text_width),
        **tower('text_model', text_width, text_layers), **norm('text_model.final_layer_norm', text_width),
        'vision_model.embeddings.class_embedding': (width,),
        'vision_model.embeddings.patch_embedding.weight': (width, 3, patch, patch),
        'vision_model.embeddings.position_embedding.weight': (1 + (resolution // patch)**2, width),
        **norm('vision_model.pre_layrnorm', width), **tower('vision_model', width, layers),
        **norm('vision_model.post_layernorm', width),
        'visual_projection.weight': (embed, width), 'text_projection.weight': (embed, text_width)}
    weights = {}
    for index, (name, shape) in enumerate(shapes.items()):
        count = torch.Size(shape).numel()
        waves = torch.sin(torch.arange(count, dtype=torch.float64)**2 * (0.37 + 0.011 * index) + index).reshape(shape)
        scale = 0.2 if len(shape) < 2 else 2 * (count // shape[0])**-0.5
        weights[name] = (scale * waves + ('norm' in name and name.endswith('.weight'))).float()
    return weights


def clip_by_shape(*, openai: bool = False, **sizes: int) -> Checkpoint:
    """A file of true names and shapes, whose zeros take no room: open_clip's, or with OpenAI's three integers."""
    import open_clip
    vision = {'image_size': sizes['resolution'], 'layers': sizes['layers'], 'width': sizes['width'],
              'patch_size': sizes['patch']}
    text = {'context_length': 77, 'vocab_size': sizes['vocabulary'], 'width': sizes['text_width'],
            'heads': sizes['text_width'] // 64, 'layers': sizes['text_layers']}
    with torch.device('meta'):
        model = open_clip.CLIP(sizes['embed'], vision, text)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    if openai:
        shapes |= dict.fromkeys(INTEGERS_OF_OPENAI, ())
    return Checkpoint({name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}, {}, 'clip.bin')


def save_torchscript(weights: dict[str, Tensor], path: str | Path) -> None:
    """Writes the weights as a TorchScript archive, as OpenAI's files are."""
    root = nn.Module()
    for name, tensor in weights.items():
        *parents, leaf = name.split('.')
        module = root
        for parent in parents:
            if not hasattr(module, parent):
                module.add_module(parent, nn.Module())
            module = getattr(module, parent)
        module.register_buffer(leaf, tensor)
    torch.jit.script(root).save(str(path))


if __name__ == '__main__':
    if len(sys.argv) != 2 or sys.argv[1].startswith('-'):
        sys.exit('usage: python tests/clip_files.py FILE.pt   # a ViT-B/16 of random weights, 300 MB')
    torch.save(clip_weights(**VIT_B_16), sys.argv[1])
