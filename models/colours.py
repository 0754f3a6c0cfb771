"""Colours for class names without a colour of their own."""
import colorsys


def palette(count: int) -> list[list[int]]:
    """Make `count` colours [red, green, blue], each 0 to 255; neighbours in the list are far apart in hue."""
    golden = 0.618034  # of the circle: the next hue falls into the widest gap
    return [[round(255 * part) for part in colorsys.hsv_to_rgb(index * golden % 1, (0.9, 0.55)[index // 5 % 2],
                                                                (1., 0.7)[index // 10 % 2])] for index in range(count)]
