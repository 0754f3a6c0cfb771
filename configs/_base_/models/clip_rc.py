# CLIP-RC on CLIP ViT-B/16; as its sizes are given here, building it needs no CLIP file.
_base_ = './clip_rc_any_clip.py'
model = dict(
    backbone=dict(patch_size=16, width=768, layers=12, heads=12, output_dim=512),
    text_encoder=dict(
        context_length=77,
        vocab_size=49408,
        transformer_width=512,
        transformer_heads=8,
        transformer_layers=12,
        embed_dim=512),
    decode_head=dict(in_channels=512))
