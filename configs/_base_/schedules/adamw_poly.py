# The effective values of the published training: every trainable tensor, norms included, learns at 2e-4 and decays
# by 0.01 (published configs write 2e-5 with multipliers that come to this).
optimizer = dict(type='AdamW', lr=2e-4, weight_decay=0.01, fused=True)
optimizer_config = dict()
lr_config = dict(
    policy='poly', power=0.9, min_lr=1e-6, by_epoch=False, warmup='linear', warmup_iters=1500, warmup_ratio=1e-6)
total_batch_size = 16  # images per step, over all GPUs; the dataset's file gives the source
