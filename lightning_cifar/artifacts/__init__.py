"""Write the pictures and tables of a run to files in its folder and to the loggers that accept images.

The functions act only on global rank zero, write nothing in ``fast_dev_run``, and work without a logger. They write
files atomically, and do not communicate between ranks, so that they can be called on one rank.
"""

from lightning_cifar.artifacts.files import DPI as DPI
from lightning_cifar.artifacts.files import run_folder as run_folder
from lightning_cifar.artifacts.files import save_animation as save_animation
from lightning_cifar.artifacts.files import save_figure as save_figure
from lightning_cifar.artifacts.files import save_json as save_json
from lightning_cifar.artifacts.files import save_page as save_page
from lightning_cifar.artifacts.files import save_table as save_table
from lightning_cifar.artifacts.files import write_picture as write_picture
from lightning_cifar.artifacts.files import writes as writes
from lightning_cifar.artifacts.frames import FrameStore as FrameStore
from lightning_cifar.artifacts.frames import frame_store as frame_store
from lightning_cifar.artifacts.tensorboard import log_graph as log_graph
from lightning_cifar.artifacts.tensorboard import log_histogram as log_histogram
from lightning_cifar.artifacts.tensorboard import log_picture as log_picture
from lightning_cifar.artifacts.tensorboard import log_pr_curves as log_pr_curves
from lightning_cifar.artifacts.tensorboard import log_scalars as log_scalars
from lightning_cifar.artifacts.tensorboard import log_settings as log_settings
from lightning_cifar.artifacts.tensorboard import log_status as log_status
from lightning_cifar.artifacts.tensorboard import log_table as log_table
from lightning_cifar.artifacts.tensorboard import log_text as log_text
from lightning_cifar.artifacts.tensorboard import save_embedding as save_embedding
