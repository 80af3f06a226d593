"""Event files of TensorBoard that contain curves, written without torch."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_cifar.files.atomic import write_atomically


def write_curves(
    folder: Path, curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], charts: Mapping[str, Sequence[str]]
) -> None:
    """Replace the event files of a folder by one with these curves.

    A TensorBoard that shows the folder replaces the curves too.

    Args:
        folder: Folder of the run, which is created. Its event files are removed.
        curves: Steps and values by tag.
        charts: Charts of the CUSTOM SCALARS tab: title -> tags of the value, its lower and its upper limit.
    """
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    now = time.time()
    old = sorted(folder.glob("events.out.tfevents.*"))
    points = []
    for tag, (steps, values) in curves.items():
        points += [(int(step), tag, float(value)) for step, value in zip(steps, values, strict=True)]
    events = [Event(wall_time=now, file_version="brain.Event:2")]
    events.append(Event(wall_time=now, step=0, session_log=SessionLog(status=SessionLog.START)))
    events.append(Event(wall_time=now, summary=_layout(charts)))
    for step, tag, value in sorted(points):
        summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
        events.append(Event(wall_time=now, step=step, summary=summary))
    buffer = io.BytesIO()
    for event in events:
        RecordWriter(buffer).write(event.SerializeToString())
    # TensorBoard reads the files in the order of their names, and does not return to an earlier one.
    count = max((int(path.name.split(".")[3]) for path in old if path.name.split(".")[3].isdigit()), default=0)
    write_atomically(folder / f"events.out.tfevents.{max(int(now), count + 1)}.mean", buffer.getvalue())
    for path in old:
        path.unlink(missing_ok=True)


def _layout(charts: Mapping[str, Sequence[str]]) -> Any:
    """Return the summary with the charts, each with a line and its margin."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.custom_scalar import layout_pb2, metadata
    from tensorboard.util.tensor_util import make_tensor_proto

    category = layout_pb2.Category(title="mean and 95 % band")
    for title, (value, lower, upper) in charts.items():
        series = layout_pb2.MarginChartContent.Series(value=value, lower=lower, upper=upper)
        category.chart.add(title=title, margin=layout_pb2.MarginChartContent(series=[series]))
    tensor = make_tensor_proto(layout_pb2.Layout(category=[category]).SerializeToString())
    details = metadata.create_summary_metadata()
    return Summary(value=[Summary.Value(tag=metadata.CONFIG_SUMMARY_TAG, tensor=tensor, metadata=details)])
