# CLIP-RC on CLIP ViT-B/16, 512x512 pixels. What differs between data sets is in their leaves.
clip = 'pretrained/ViT-B-16.pt'  # python tools/download_clip.py
model = dict(
    type='CLIPRC',
    pretrained=clip,
    pretrained_text=clip,
    backbone=dict(
        type='CLIPVisionEncoder',
        input_resolution=512,
        patch_size=16,
        width=768,
        layers=12,
        heads=12,
        output_dim=512,
        num_tokens=10,  # P, prompt tokens before every block
        region_level_bridge_size=16),  # R, region tokens: 4x4
    text_encoder=dict(
        type='CLIPTextEncoder',
        context_length=77,
        vocab_size=49408,
        transformer_width=512,
        transformer_heads=8,
        transformer_layers=12,
        embed_dim=512),
    decode_head=dict(
        type='RegionClueHead',
        img_size=512,
        in_channels=512,
        num_layers=3,
        num_heads=8,
        recovery_decoder_num_layers=1,
        class_head=dict(type='TextClassHead', seen_penalty=0.1),
        loss_decode=dict(type='MaskLoss', mask_weight=100., dice_weight=1., recovery_loss_weight=2.)),
    self_training=False,  # True: the transductive setting
    test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(426, 426)))
