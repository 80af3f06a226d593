"""Write a trained classifier to one file, in three formats."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
import yaml
from torch import nn

from lightning_cifar.checkpoints.reading import CONFIG_KEY
from lightning_cifar.checkpoints.trained import Trained
from lightning_cifar.commands.export.reading import Format, Portable, Run, quiet
from lightning_cifar.errors import UsageError, one_line
from lightning_cifar.models.hand_made import HandConv2d, HandLinear, HandPool2d, HandReLU
from lightning_cifar.runs.metrics import read_result

if TYPE_CHECKING:
    from torch.export import ExportedProgram

FACTS_FILE = "metadata.json"  # inside a pt2 archive
OPSET = 18  # of ONNX: the oldest that torch's exporter writes without conversion, supported by most runtimes


def facts_of(trained: Trained, image_size: int, **more: object) -> dict[str, object]:
    """Return the information in an exported file, plain values by name."""
    model, size = trained.model, image_size
    colors = "RGB, " if model.in_channels == 3 else ""
    return {
        "input": f"images: float32 (N, {model.in_channels}, {size}, {size}), {colors}values in [0, 1], any N; "
        "the network normalizes them",
        "output": f"logits: float32 (N, {model.num_classes}), in the order of class_names; softmax gives probabilities",
        "class_names": list(trained.class_names),
        "mean": list(trained.mean),
        "std": list(trained.std),
        "in_channels": model.in_channels,
        "image_size": size,
        "model": type(model).__name__,
        "class_path": f"{type(model).__module__}.{type(model).__qualname__}",
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "epochs": trained.epochs,
        **more,
        "versions": {name: version(name) for name in ("lightning-cifar", "torch", "torchvision")},
    }


def resize_of(content: Mapping[str, Any]) -> str:
    """Describe how images of other sizes were resized, from the configuration in a checkpoint."""
    data = (yaml.safe_load(content.get(CONFIG_KEY) or "{}") or {}).get("data") or {}
    whole = (data.get("init_args") or {}).get("resize") == "squash"
    part = "the whole image, distorted to a square" if whole else "the largest square in the middle"
    return f"{part}, bicubic with antialiasing"


def accuracies_of(content: Mapping[str, Any], run: Path | None) -> dict[str, float]:
    """Return the validation accuracy when the checkpoint was written, and the test accuracy, by logged names.

    Args:
        run: Folder of the run, if its final results are those of this checkpoint.

    Raises:
        UnreadableFileError: If result.json in the folder has another format.
    """
    known: dict[str, float] = {}
    states = content.get("callbacks")
    for state in states.values() if isinstance(states, dict) else ():
        if isinstance(state, dict) and state.get("monitor") == "val/accuracy":
            score = state.get("current_score")
            known |= {} if score is None else {"val/accuracy": round(float(score), 6)}
    held = None if run is None else read_result(run)
    value = None if held is None else held.get("metrics", {}).get("test/accuracy")
    return known if value is None else known | {"test/accuracy": round(value, 6)}


def write(format: Format, network: Portable) -> bytes:
    """Return the content of a file in this format: the network, and its facts as JSON.

    Raises:
        UsageError: If the format does not support the network.
        ImportError: If a package that writes the format is not installed.
    """
    with quiet():
        return {"safetensors": _to_safetensors, "onnx": _to_onnx, "pt2": _to_pt2}[format](network)


def _to_safetensors(network: Portable) -> bytes:
    from safetensors.torch import save

    # safetensors does not support tensors with shared memory or another memory format.
    state = {
        name: value.detach().cpu().contiguous().clone(memory_format=torch.contiguous_format)
        for name, value in network.classifier.state_dict().items()
    }
    return save(state, metadata=_as_texts(network.facts))


def _to_pt2(network: Portable) -> bytes:
    program, buffer = _trace(network, "pt2"), io.BytesIO()
    torch.export.save(program, buffer, extra_files={FACTS_FILE: json.dumps(network.facts, default=str)})
    return buffer.getvalue()


def _to_onnx(network: Portable) -> bytes:
    program = _trace(network, "onnx")
    try:
        exported = torch.onnx.export(
            program,
            dynamo=True,
            input_names=["images"],
            output_names=["logits"],
            opset_version=OPSET,
            verbose=False,
        )
    except Exception as error:  # the exporter raises many types
        raise _refusal(network, "onnx", error) from error
    assert exported is not None
    proto = exported.model_proto
    for name, text in _as_texts(network.facts).items():
        proto.metadata_props.add(key=name, value=text)
    content: bytes = proto.SerializeToString()
    return content


def _trace(network: Portable, format: Format) -> ExportedProgram:
    """Trace the computation as a graph for any number of images."""
    size, channels = network.facts["image_size"], network.facts["in_channels"]
    assert isinstance(size, int)
    assert isinstance(channels, int)
    images = torch.zeros(3, channels, size, size)  # with a single image, the graph would only support one
    try:
        with torch.no_grad():
            program = torch.export.export(
                _with_library_layers(network),
                (images,),
                dynamic_shapes={"images": {0: torch.export.Dim("N")}},
                strict=False,
            )
    except Exception as error:  # depends on the version of torch
        raise _refusal(network, format, error) from error
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # contains the folders of this machine
    return program


def _with_library_layers(network: Portable) -> Portable:
    """Replace hand-written layers, which cannot be traced, by the equivalent functions of torch."""
    if not any(isinstance(module, HandConv2d | HandLinear | HandReLU | HandPool2d) for module in network.modules()):
        return network
    network = copy.deepcopy(network)
    for module in network.modules():
        match module:
            case HandConv2d():
                forward: Run = partial(nn.Conv2d.forward, module)
            case HandLinear():
                forward = partial(nn.Linear.forward, module)
            case HandReLU():
                forward = F.relu
            case HandPool2d():
                pool = F.max_pool2d if module.kind == "max" else F.avg_pool2d
                forward = partial(pool, kernel_size=module.size, stride=module.stride)
            case _:
                continue
        vars(module)["forward"] = forward
    return network


def _refusal(network: Portable, format: Format, error: Exception) -> UsageError:
    name, reason = type(network.classifier).__name__, one_line(error).split(". ")[0][:160]
    return UsageError(f"{name} cannot be written as {format} ({reason}): --format safetensors supports every network.")


def _as_texts(facts: Mapping[str, object]) -> dict[str, str]:
    return {name: json.dumps(value, default=str, ensure_ascii=False) for name, value in facts.items()}
