_base_ = './adamw_poly.py'
optimizer = dict(lr=4e-4, fused=True)
lr_config = dict(warmup_iters=100)
runner = dict(type='IterBasedRunner', max_iters=1400)
checkpoint_config = dict(by_epoch=False, interval=350)
evaluation = dict(interval=700, metric='mIoU')
