"""Write the pictures and tables of a run to files in its folder and to the loggers that accept images.

The functions act only on global rank zero, write nothing in ``fast_dev_run``, and work without a logger. They write
files atomically, and do not communicate between ranks, so that they can be called on one rank.
"""

from lightning_cifar.artifacts.files import (
    DPI,
    run_folder,
    save_animation,
    save_figure,
    save_json,
    save_page,
    save_table,
    write_picture,
    writes,
)
from lightning_cifar.artifacts.frames import (
    FrameStore,
    frame_store,
)
from lightning_cifar.artifacts.tensorboard import (
    log_graph,
    log_histogram,
    log_picture,
    log_pr_curves,
    log_scalars,
    log_settings,
    log_status,
    log_table,
    log_text,
    save_embedding,
)

__all__ = [
    "DPI",
    "FrameStore",
    "frame_store",
    "log_graph",
    "log_histogram",
    "log_picture",
    "log_pr_curves",
    "log_scalars",
    "log_settings",
    "log_status",
    "log_table",
    "log_text",
    "run_folder",
    "save_animation",
    "save_embedding",
    "save_figure",
    "save_json",
    "save_page",
    "save_table",
    "write_picture",
    "writes",
]
