_base_ = './inductive.py'
model = dict(novel_class=[])
