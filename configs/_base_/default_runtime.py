log_config = dict(
    interval=50,
    hooks=[dict(type='TextLoggerHook', by_epoch=False), dict(type='TensorboardLoggerHook', by_epoch=False)])
log_level = 'INFO'
dist_params = dict(backend='nccl')  # gloo where there is no GPU
load_from = None
resume_from = None
workflow = [('train', 1)]
cudnn_benchmark = True
