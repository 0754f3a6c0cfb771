log_config = dict(
    interval=50,
    hooks=[dict(type='TextLoggerHook', by_epoch=False), dict(type='TensorboardLoggerHook', by_epoch=False)])
log_level = 'INFO'
dist_params = dict(backend='nccl')  # gloo where there is no GPU
load_from = None
resume_from = None
workflow = [('train', 1)]
cudnn_benchmark = True
# Products of float32 are exact on a GPU, too. With torch 1.10.1, which the published code names, GPUs from Ampere on
# computed them in TF32: tf32 = True. For bfloat16 or float16: amp = dict(dtype='bfloat16').
tf32 = False
