from lightning_cifar.ext.conv_geometry import Array

Pair = tuple[int, int]

def forward(x: Array, w: Array, y: Array, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> None: ...
def grad_input(
    grad_y: Array, w: Array, grad_x: Array, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> None: ...
def grad_weight(
    grad_y: Array, x: Array, grad_w: Array, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> None: ...
