_base_ = './adamw_poly.py'
optimizer = dict(lr=5e-4)
lr_config = dict(warmup_iters=100)
runner = dict(type='IterBasedRunner', max_iters=800)
checkpoint_config = dict(by_epoch=False, interval=200)
evaluation = dict(interval=400, metric='mIoU')
