"""The palette under its older name, for `mmcv_compat`."""


def palette(count: int) -> list[list[int]]:
    from .inference import drawing  # which imports the model
    return drawing.palette(count)
