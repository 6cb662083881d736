"""Memory layouts of packed int8 matrices."""

from collections.abc import Sequence
from enum import IntEnum


class Layout(IntEnum):
    """Ids of the packed layouts. Files carry them, so they never change.

    The values are those of the Vulkan delegate's serialization schema in ExecuTorch. Every layout consists of
    int32 words of four int8 values (byte 0 is the lowest index), padded with 0.
    """

    PACKED_INT8_4W4C = 3  # 4 columns x 4 channels; reserved for convolution
    PACKED_INT8_4H4W = 4  # blocks of 4 rows x 4 columns: [m4, k4, row in the block]
    PACKED_INT8_4W = 5  # rows: [m, k4]


def packed_shape(sizes: Sequence[int], layout: int) -> list[int]:
    """Shape of the int32 tensor that holds an int8 tensor of ``sizes`` ``[..., M, K]``.

    ``[..., ceil(M / 4), ceil(K / 4), 4]`` for 4H4W and ``[..., M, ceil(K / 4)]`` for 4W.
    """
    *leading, rows, columns = sizes
    if layout == Layout.PACKED_INT8_4H4W:
        return [*leading, (rows + 3) // 4, (columns + 3) // 4, 4]
    return [*leading, rows, (columns + 3) // 4]
