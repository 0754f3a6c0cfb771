# CLIP-RC on any CLIP ViT, 512x512 pixels (image_size changes that). Its sizes are read from the CLIP file and kept in
# checkpoints.
clip = 'pretrained/ViT-B-16.pt'  # python tools/download.py
model = dict(
    type='CLIPRC',
    pretrained=clip,
    pretrained_text=clip,
    backbone=dict(
        type='CLIPVisionEncoder',
        input_resolution=512,
        num_tokens=10,  # P, prompt tokens before every block
        region_level_bridge_size=16),  # R, region tokens: 4x4
    text_encoder=dict(type='CLIPTextEncoder'),
    decode_head=dict(
        type='RegionClueHead',
        img_size=512,
        num_layers=3,
        num_heads=8,
        recovery_decoder_num_layers=1,
        class_head=dict(type='TextClassHead', seen_penalty=0.1),
        loss_decode=dict(type='MaskLoss', mask_weight=100., dice_weight=1., recovery_loss_weight=2.)),
    self_training=False,  # True: the transductive setting
    test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(426, 426)))
