"""Write values, texts, tables, graphs and embeddings to the TensorBoard loggers of a run."""

from __future__ import annotations

import io
import math
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lightning_cifar.artifacts.files import last_step, writes
from lightning_cifar.files.atomic import write_atomically
from lightning_cifar.files.reading import read_bytes

if TYPE_CHECKING:
    from lightning.pytorch import Trainer
    from torch import Tensor, nn

LARGEST_SPRITE = 8192
"""Largest height and width in pixels of the picture of thumbnails that TensorBoard's projector accepts."""


def log_picture(folder: Path, tag: str, content: bytes, step: int) -> None:
    """Add a PNG picture to the TensorBoard events of a run that has ended.

    Args:
        folder: Folder of the run.
        tag: Tag in TensorBoard.
        content: The PNG file.
        step: Number of completed steps.
    """
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
        writer.add_image(tag, pixels, max(step - 1, 0), dataformats="HWC")


def log_scalars(trainer: Trainer, values: Mapping[str, float]) -> None:
    """Log numbers by tag with TensorBoard only, at the last completed step."""
    for writer in _writers(trainer, "add_scalar"):
        for tag, value in values.items():
            writer.add_scalar(tag, value, last_step(trainer))


def log_text(trainer: Trainer, tag: str, text: str, *, once: bool = False) -> None:
    """Log a Markdown text with TensorBoard, at the last completed step; ``once``: not again in a continued run."""
    for writer in _writers(trainer, "add_text"):
        if not (once and _continues(writer)):
            writer.add_text(tag, text, last_step(trainer))


def log_table(
    trainer: Trainer, tag: str, header: Sequence[str], rows: Iterable[Sequence[object]], *, once: bool = False
) -> None:
    """Log a table as Markdown text with TensorBoard, see :func:`log_text`."""
    if _writers(trainer, "add_text"):
        lines = [header, ["---"] * len(header), *rows]
        text = "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)
        log_text(trainer, tag, text, once=once)


def log_graph(trainer: Trainer, network: nn.Module, example: Tensor | tuple[Any, ...]) -> None:
    """Log the graph of a network with TensorBoard. A network that torch cannot trace, or a continued run, is skipped.

    The caller puts the network into evaluation mode.

    Args:
        trainer: Trainer with the loggers.
        network: Network on any device.
        example: Input on the same device, or a tuple of inputs.
    """
    for writer in _writers(trainer, "add_graph"):
        from torch.jit import trace

        if _continues(writer):
            continue
        # torch prints the error of a failed trace, and warns of values that depend on the input.
        with suppress(Exception), warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            # The check would take most of the time.
            writer.add_graph(trace(network, example, check_trace=False))  # type: ignore[no-untyped-call]


def log_histogram(
    trainer: Trainer,
    tag: str,
    counts: NDArray[np.int64],
    edges: NDArray[np.float64],
    *,
    ends: tuple[float, float] | None = None,
    step: int | None = None,
) -> None:
    """Log a histogram with TensorBoard.

    Args:
        trainer: Trainer with the loggers.
        tag: Tag of the histogram.
        counts: (B,), number of values in each bin.
        edges: (B + 1,), edges of the bins.
        ends: Smallest and largest value; None means the ends of the bins.
        step: Step in TensorBoard; None means the last completed step.
    """
    low, high = ends or (float(edges[0]), float(edges[-1]))
    centers = (edges[1:] + edges[:-1]) / 2
    for writer in _writers(trainer, "add_histogram_raw"):
        writer.add_histogram_raw(
            tag,
            min=low,
            max=high,
            num=int(counts.sum()),
            sum=float(counts @ centers),
            sum_squares=float(counts @ centers**2),
            bucket_limits=edges[1:].tolist(),
            bucket_counts=counts.tolist(),
            global_step=last_step(trainer) if step is None else step,
        )


def log_pr_curves(trainer: Trainer, curves: Mapping[str, NDArray[np.float64]]) -> None:
    """Log precision-recall curves with TensorBoard.

    Args:
        trainer: Trainer with the loggers.
        curves: (6, T) by tag, see ``lightning_cifar.analysis.classification.pr_curves``.
    """
    for writer in _writers(trainer, "add_pr_curve_raw"):
        for tag, curve in curves.items():
            writer.add_pr_curve_raw(tag, *curve, global_step=last_step(trainer), num_thresholds=curve.shape[1])


def save_embedding(
    trainer: Trainer,
    name: str,
    features: NDArray[np.float32],
    header: Sequence[str],
    rows: Sequence[Sequence[object]],
    thumbnails: NDArray[np.float32] | None = None,
) -> None:
    """Write points for the projector of each TensorBoard logger; points of other names are kept.

    Args:
        trainer: Trainer with the loggers.
        name: Name of the tensor, also of its folder in ``projector/``.
        features: (N, D), one row for each point.
        header: Names of the columns.
        rows: N rows.
        thumbnails: (N, H, W, C) in [0, 1], C 1 or 3; None for points without. They are shared by the names with the
            same first part.
    """
    for writer in _writers(trainer, "add_embedding"):
        folder = Path(writer.log_dir)
        points = ["\t".join(f"{value:.6g}" for value in row) for row in features.tolist()]
        write_atomically(folder / "projector" / name / "tensors.tsv", "\n".join([*points, ""]).encode())
        lines = ["\t".join(" ".join(str(cell).split()) for cell in row) for row in (header, *rows)]
        write_atomically(folder / "projector" / name / "metadata.tsv", "\n".join([*lines, ""]).encode())
        config = f'tensor_name: "{name}"\n  tensor_shape: [{features.shape[0]}, {features.shape[1]}]\n'
        config += f'  tensor_path: "projector/{name}/tensors.tsv"\n'
        config += f'  metadata_path: "projector/{name}/metadata.tsv"\n'
        if thumbnails is not None:
            sprite, (height, width) = _sprite(thumbnails)
            path = Path("projector", name.partition("/")[0], "sprite.png")
            write_atomically(folder / path, sprite)
            config += f'  sprite {{ image_path: "{path}" single_image_dim: [{width}, {height}] }}\n'
        write_atomically(folder / "projector" / name / "config.pbtxt", f"embeddings {{\n  {config}}}\n".encode())
        parts = sorted((folder / "projector").rglob("config.pbtxt"))
        write_atomically(folder / "projector_config.pbtxt", b"".join(map(read_bytes, parts)))


def _sprite(thumbnails: NDArray[np.float32]) -> tuple[bytes, tuple[int, int]]:
    """Return a PNG of all thumbnails in rows, at most 8192 x 8192 pixels, and their height and width."""
    count, height, width, _ = thumbnails.shape
    columns = math.ceil(math.sqrt(count))
    scale = min(1.0, LARGEST_SPRITE // columns / max(height, width))
    height, width = max(1, int(height * scale)), max(1, int(width * scale))
    columns = min(columns, LARGEST_SPRITE // width)
    sheet = Image.new("RGB", (columns * width, columns * height))
    for i, pixels in enumerate(np.clip(thumbnails * 255, 0, 255).round().astype(np.uint8)):
        image = Image.fromarray(np.repeat(pixels, 3 // pixels.shape[-1], axis=-1))
        image = image if scale == 1 else image.resize((width, height))
        sheet.paste(image, (i % columns * width, i // columns * height))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", compress_level=0)  # photographs would shrink by a quarter, in most of the time
    return buffer.getvalue(), (height, width)


def log_settings(trainer: Trainer, settings: Mapping[str, bool | float | str]) -> None:
    """Start the row of a run in the HPARAMS tab of TensorBoard; a continued run keeps its row.

    TensorBoard collects the columns from all rows and finds the metrics by their tags. An experiment summary, as that
    of ``add_hparams``, would restrict all rows to the columns of one run.
    """
    for writer in _writers(trainer, "_get_file_writer"):
        from tensorboard.plugins.hparams import metadata, plugin_data_pb2

        if not _continues(writer):
            start = plugin_data_pb2.SessionStartInfo(start_time_secs=time.time())
            for name, value in settings.items():
                kind = "bool" if isinstance(value, bool) else "string" if isinstance(value, str) else "number"
                setattr(start.hparams[name], f"{kind}_value", value)
            _add_session(writer, metadata.SESSION_START_INFO_TAG, session_start_info=start)
            writer.flush()  # a killed run has a row too


def log_status(trainer: Trainer, *, succeeded: bool) -> None:
    """Write the status of a run for the HPARAMS tab of TensorBoard."""
    for writer in _writers(trainer, "_get_file_writer"):
        from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

        status = api_pb2.Status.Value("STATUS_SUCCESS" if succeeded else "STATUS_FAILURE")
        end = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=time.time())
        _add_session(writer, metadata.SESSION_END_INFO_TAG, session_end_info=end)


def _add_session(writer: Any, tag: str, **content: Any) -> None:
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.plugins.hparams import metadata, plugin_data_pb2

    data = plugin_data_pb2.HParamsPluginData(version=metadata.PLUGIN_DATA_VERSION, **content).SerializeToString()
    plugin = SummaryMetadata.PluginData(plugin_name=metadata.PLUGIN_NAME, content=data)
    value = Summary.Value(tag=tag, metadata=SummaryMetadata(plugin_data=plugin), tensor=metadata.NULL_TENSOR)
    writer._get_file_writer().add_summary(Summary(value=[value]))


def _writers(trainer: Trainer, method: str) -> list[Any]:
    """Return the experiments of the loggers that have a method of TensorBoard's SummaryWriter."""
    found = [getattr(logger, "experiment", None) for logger in trainer.loggers] if writes(trainer) else []
    return [experiment for experiment in found if callable(getattr(experiment, method, None))]


def _continues(writer: Any) -> bool:
    """Return whether an earlier part of the same run wrote events."""
    return len(list(Path(writer.log_dir).glob("events.out.tfevents.*"))) > 1 if hasattr(writer, "log_dir") else False


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if math.isfinite(value) else "-"
    text = " ".join(str(value).split())
    return text.replace("|", "\\|")
