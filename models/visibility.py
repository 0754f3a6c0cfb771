"""Which token of the vision encoder attends to which, and that mask in the forms that attention kernels take.

plain     the mask as it is: what a CPU takes.
aligned   the mask and the keys padded to a multiple of 8: on a GPU PyTorch would copy an unaligned mask in every block.
widened   no mask, as flash attention has none: it is folded into further columns of q and k.

`tools/benchmarking/README.md` compares them. N tokens, of which the last R are regions; P prompts.
"""
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .clip_layers import Widening
from .errors import UserError

FORMS = 'auto', 'plain', 'aligned', 'widened'
ALIGNMENT = 8  # numbers of half precision in the 16 bytes that kernels load at once
FAR = 2.**15  # the largest power of two in float16; exp(-FAR / 16) is 0 in every number type
WIDEST = 128  # columns of a head: with more, flash attention computes twice as much or more


def region_visibility(grid: tuple[int, int], side: int, prompts: int, device: torch.device | None = None) -> Tensor:
    """Make the attention mask, bool: rows [CLS | patches | regions] attend to columns [prompts | the same].

    CLS and patches attend to each other and to the prompts. A region token and the patches of its cell attend to each
    other. A region token also attends to itself, and no other token attends to it.

    Args:
        grid: patches in height and width.
        side: r, the regions in height and in width; 0 for none.

    Raises:
        UserError: the regions do not divide the grid.
    """
    height, width = grid
    if side == 0:
        return torch.ones(1 + height * width, prompts + 1 + height * width, dtype=torch.bool, device=device)
    if height % side or width % side:
        raise UserError(f'a grid of {height}x{width} patches cannot be divided into {side}x{side} regions: '
                        'use an image or crop size whose sides in patches are multiples of '
                        f'{side}, or another region_level_bridge_size.')
    row = torch.arange(height, device=device) // (height // side)
    column = torch.arange(width, device=device) // (width // side)
    cell_of_patch = (row[:, None] * side + column).flatten()  # (Gh*Gw,)
    nowhere = torch.full((prompts + 1,), -1, device=device)
    cell = torch.cat([nowhere, cell_of_patch, torch.arange(side * side, device=device)])
    is_region = torch.arange(len(cell), device=device) >= len(cell) - side * side
    return ((~is_region[:, None] & ~is_region) | (cell[:, None] == cell))[prompts:]


def choose_form(device: torch.device, dtype: torch.dtype, regions: int, head_width: int, *, backward: bool) -> str:
    """Choose the form for attention on `device` in `dtype`.

    Flash attention needs half precision. Its backward pass is worth half as many operations again; with the forward
    pass alone they cost more than the mask.
    """
    if device.type != 'cuda':
        return 'plain'
    flash = backward and dtype in (torch.float16, torch.bfloat16) and head_width + 2 * regions <= WIDEST
    return 'widened' if flash else 'aligned'


def in_form(form: str, visible: Tensor, regions: int, dtype: torch.dtype, head_width: int
            ) -> tuple[Tensor | Widening | None, int]:
    """Give a mask (N, P + N) bool in one of the `FORMS`, and by how many columns it is wider.

    These columns are in front and hidden: they need as many further prompts, of any values. The mask is None where
    nothing is hidden.
    """
    if form == 'auto':
        form = choose_form(visible.device, dtype, regions, head_width, backward=torch.is_grad_enabled())
    if form != 'plain' and regions == 0:
        return None, 0
    if form == 'widened':
        return widen(visible, regions, dtype), 0
    padding = -visible.shape[1] % ALIGNMENT if form == 'aligned' else 0
    if padding:
        visible = F.pad(visible, (padding, 0))
    return torch.zeros_like(visible, dtype=dtype).masked_fill_(~visible, -math.inf), padding


def widen(visible: Tensor, regions: int, dtype: torch.dtype) -> Widening:
    """Factorise a mask (N, P + N) that hides region tokens from others, and anything from region tokens.

    The first R columns serve the queries of other tokens: 1 where the query does not see region r, and -FAR in the key
    of region r. The next R serve the queries of regions: 1 in that of region r, and -FAR in the keys that it does not
    see. The rest is 0: where a token attends, these columns add exactly 0 to q @ k.T, elsewhere -FAR.
    """
    hidden, one = ~visible, torch.eye(regions, dtype=torch.bool, device=visible.device)
    q = torch.block_diag(hidden[:-regions, -regions:], one)  # (N, 2R)
    k = torch.cat([F.pad(one, (0, 0, visible.shape[1] - regions, 0)), hidden[-regions:].T], dim=1)  # (P + N, 2R)
    q, k = (F.pad(columns.to(dtype), (0, -2 * regions % ALIGNMENT)) for columns in (q, k))
    return Widening(q, torch.stack([-FAR * k, torch.zeros_like(k)], dim=1))
