_base_ = './inductive.py'
model = dict(self_training=True)
runner = dict(max_iters=400)
