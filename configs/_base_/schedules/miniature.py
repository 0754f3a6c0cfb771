# Short: Adam must soon forget the large first gradients (beta 2), which the published 40,000 iterations outlast.
_base_ = './adamw_poly.py'
optimizer = dict(lr=1e-3, betas=(0.9, 0.95), fused=True)
lr_config = dict(warmup_iters=100)
runner = dict(type='IterBasedRunner', max_iters=800)
checkpoint_config = dict(by_epoch=False, interval=400)
evaluation = dict(interval=400, metric='mIoU')
