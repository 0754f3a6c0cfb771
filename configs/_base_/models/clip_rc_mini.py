# CLIP-RC on the miniature's CLIP: 64x64 pixels, patches of 8. One decoder layer instead of three learns several times
# faster.
_base_ = './clip_rc.py'
clip = 'tools/miniature/clip.pt'  # trained by tools/miniature/train_clip.py
model = dict(
    pretrained=clip,
    pretrained_text=clip,
    backbone=dict(input_resolution=64, patch_size=8, width=128, layers=4, heads=2, output_dim=64, num_tokens=8,
                  region_level_bridge_size=4),
    text_encoder=dict(transformer_width=64, transformer_heads=1, transformer_layers=3, embed_dim=64),
    decode_head=dict(img_size=64, in_channels=64, num_heads=4, num_layers=1),
    test_cfg=dict(crop_size=(64, 64), stride=(64, 64)))
