"""The texts that class names are put into. A dataset names the set that its published embeddings were made with."""

PROMPT_SETS = {
    'single': ('a photo of a {}',),
    'coco15': (
        'a photo of a {}.',
        'a photo of a small {}.',
        'a photo of a medium {}.',
        'a photo of a large {}.',
        'This is a photo of a {}.',
        'This is a photo of a small {}.',
        'This is a photo of a medium {}.',
        'This is a photo of a large {}.',
        'a {} in the scene.',
        'a photo of a {} in the scene.',
        'There is a {} in the scene.',
        'There is the {} in the scene.',
        'This is a {} in the scene.',
        'This is the {} in the scene.',
        'This is one {} in the scene.',
    ),
}
