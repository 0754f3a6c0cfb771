# A short schedule: Adam must forget the huge first gradients soon (beta 2), and start gently.
_base_ = './adamw_poly.py'
optimizer = dict(lr=2e-3, betas=(0.9, 0.95), fused=True)
lr_config = dict(warmup_iters=50)
total_batch_size = 4
runner = dict(type='IterBasedRunner', max_iters=1200)
checkpoint_config = dict(by_epoch=False, interval=300)
evaluation = dict(interval=300, metric='mIoU')
