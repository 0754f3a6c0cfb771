_base_ = './adamw_poly.py'
optimizer = dict(lr=1e-3)
lr_config = dict(warmup_iters=100)
runner = dict(type='IterBasedRunner', max_iters=800)
checkpoint_config = dict(by_epoch=False, interval=400)
evaluation = dict(interval=1000000, metric='mIoU')
