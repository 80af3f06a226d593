"""Transfer learning: a network of torchvision in named stages, some of which are trained and the others frozen."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, get_args

import torch
import torch.nn.functional as F
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor, nn

from lightning_cifar.artifacts import run_folder
from lightning_cifar.errors import did_you_mean
from lightning_cifar.models.classifier import Classifier
from lightning_cifar.models.feature_cache import FeatureCache, Place, Plan, fill
from lightning_cifar.models.pretrained_weights import IMAGENET_MEAN, IMAGENET_STD, build_network, published
from lightning_cifar.models.trainable import Batch

HEAD = "head"

# Steps of a forward pass that are not modules in torchvision's networks.
STEPS: dict[str, Callable[[Tensor], Tensor]] = {
    "@flatten": lambda x: x.flatten(1),
    "@pool_5": lambda x: F.avg_pool2d(x, kernel_size=5, stride=3),
    "@pool": lambda x: F.adaptive_avg_pool2d(x, (1, 1)),
}


class Stages(NamedTuple):
    """The forward pass of a network as named stages, each with the names of its submodules or ``STEPS`` in order."""

    body: dict[str, tuple[str, ...]]
    heads: tuple[tuple[str, ...], ...]
    """Steps of the main head and, if present, of the auxiliary head."""
    last_layers: tuple[str, ...]
    side: str | None = None
    """Stage of the body whose output is the input of the auxiliary head only."""


class Transfer(Classifier):
    """A network of torchvision with a new last layer. Subclasses define its stages.

    Images are resized on their device to ``input_size``. They must be normalised as in the training of the weights:
    published weights need ImageNet's mean and std, which are arguments (``mean``, ``std``) of the data module.

    Stages that are not trained are frozen: their parameters get no gradient, and their batch norms and dropouts stay in
    evaluation mode. The stages before the first trained one run without a graph.

    Args:
        arch: Torchvision's name of the network.
        weights: ``default`` or torchvision's name of published weights (``IMAGENET1K_V1``), which are downloaded once
            into torch's cache; the file of a state dict or of a checkpoint with the same ``arch``; None for random
            weights.
        train: ``head`` for the last layer only, ``all``, or the names of stages that are trained with the head.
        backbone_lr_ratio: Learning rate of the stages before the head, as a fraction of ``lr``.
        new_head: Initialise the last layer randomly. False uses the loaded one, which must have as many classes.
        input_size: Height and width in pixels to which images are resized; None is the usual size of the network.
        cache: Where to keep the features of recurring images, so that the frozen stages run once: ``memory``; ``file``
            (memory-mapped, in the run folder); ``auto`` for memory if that is exact and below 2 GiB; or ``never``.
        **training: See :class:`~lightning_cifar.models.classifier.Classifier`.

    Raises:
        ValueError: If a value is out of range, a stage is unknown, or the weights do not fit.
        OSError: If published weights are not in the cache and cannot be downloaded.
    """

    archs: tuple[str, ...] = ()
    smallest_input = 32
    usual_input = 224
    aux_weight = 0.0
    """Weight of the loss of the auxiliary head in training."""

    def __init__(
        self,
        *,
        arch: str,
        weights: str | None = "default",
        train: str | list[str] = HEAD,
        backbone_lr_ratio: float = 1.0,
        new_head: bool = True,
        input_size: int | None = None,
        cache: Place = "auto",
        **training: Any,
    ) -> None:
        super().__init__(**training)
        self.save_hyperparameters()
        if arch not in self.archs:
            raise ValueError(f"arch (={arch}) must be one of {', '.join(self.archs)}.{did_you_mean(arch, self.archs)}")
        self.input_size = self.usual_input if input_size is None else input_size
        if self.input_size < self.smallest_input:
            raise ValueError(f"input_size (={input_size}) must be at least {self.smallest_input} pixels for {arch}.")
        if self.in_channels not in (1, 3):
            raise ValueError(
                f"in_channels (={self.in_channels}) must be 3, or 1 for grey images, for {type(self).__name__}."
            )
        if not 0 < backbone_lr_ratio <= 1000:
            raise ValueError(f"backbone_lr_ratio (={backbone_lr_ratio}) must be above 0 and at most 1000.")
        if cache not in get_args(Place):
            raise ValueError(f"cache (={cache!r}) must be one of {', '.join(get_args(Place))}.")
        self.backbone_lr_ratio, self.cache = backbone_lr_ratio, cache
        with torch.device("meta"):  # only names, so that errors are raised before a download
            last_layers = self.stages_of(build_network(arch, None, num_classes=2, heads=(), new_head=True)).last_layers
        network = build_network(arch, weights, num_classes=self.num_classes, heads=last_layers, new_head=new_head)
        self.network = network.to(memory_format=torch.channels_last)
        self._stages = self.stages_of(self.network)
        self._trained = self._check_train(train)
        names = list(self._stages.body)
        # Stages before this one run without a graph, and their outputs can be cached.
        self._first_trained = next((i for i, stage in enumerate(names) if stage in self._trained), len(names))
        self._wants_imagenet = weights is not None and published(arch, weights) is not None
        self._is_random = weights is None
        self._features: FeatureCache | None = None
        self._shapes: list[torch.Size] = []
        self._uses_features = False
        self._untrained = [stage for stage in names if stage not in self._trained]
        for module in self._modules_of(self._untrained):
            module.requires_grad_(False)
        self.train()

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        self._is_random = False
        return super().load_state_dict(*args, **kwargs)

    def stages_of(self, network: nn.Module) -> Stages:
        """Return the stages of a network of this kind."""
        raise NotImplementedError

    def normalise(self, images: Tensor) -> Tensor:
        """Convert images from ImageNet's normalisation to that of the network."""
        return images

    def _check_train(self, train: str | list[str]) -> set[str]:
        """Return the names of the stages that are trained."""
        names = list(self._stages.body)
        if train in ("all", HEAD):
            return set(names) if train == "all" else set()
        chosen = [train] if isinstance(train, str) else list(train)
        for stage in chosen:
            if stage not in (*names, HEAD):
                raise ValueError(
                    f"train (={train}): unknown stage {stage!r}.{did_you_mean(str(stage), [*names, HEAD, 'all'])} "
                    f"Use all, or stages among {', '.join(names)} and head."
                )
        return set(chosen) - {HEAD}

    def _modules_of(self, stages: Iterable[str]) -> list[nn.Module]:
        names = [name for stage in stages for name in self._stages.body[stage] if name not in STEPS]
        return [self.network.get_submodule(name) for name in names]

    def train(self, mode: bool = True) -> Transfer:
        """Set training mode, in which frozen batch norms and dropouts stay in evaluation mode."""
        super().train(mode)
        for module in self._modules_of(self._untrained):
            module.eval()
        return self

    def _parameter_groups(self) -> list[dict[str, Any]]:
        """Return the head's groups with ``lr``, and those of other stages with a fraction of it."""
        body = {parameter for module in self._modules_of(self._trained) for parameter in module.parameters()}
        groups = []
        for group in super()._parameter_groups():
            parts = [[each for each in group["params"] if (each in body) == inside] for inside in (False, True)]
            for part, ratio in zip(parts, (1.0, self.backbone_lr_ratio), strict=True):
                if part:
                    groups.append({**group, "params": part, "lr": self.lr * ratio})
        return groups

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, num_classes) of images (N, C, H, W)."""
        return self._heads(self._body(images))[0]

    def training_loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the loss of a training batch, including the auxiliary head, and the logits of the main head."""
        images, labels = batch if self._mix is None else self._mix(*batch)
        logits, *others = self._heads(self._body(images))
        loss = self.loss(logits, labels)
        for other in others:
            loss = loss + self.aux_weight * self.loss(other, labels)
        return loss, logits

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        with self._using_features():
            return super().training_step(batch, batch_idx)

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        with self._using_features():
            return super().validation_step(batch, batch_idx)

    def _body(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the input of each head."""
        cached = self._features.find(images) if self._features is not None and self._uses_features else None
        state = self._frozen(images) if cached is None else self._unpacked(cached)
        return self._run(list(self._stages.body)[self._first_trained :], state)

    def _frozen(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the output of the stages before the first trained one, with a graph only if images require one."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and images.requires_grad):
            if images.shape[1] == 1:
                images = images.expand(-1, 3, -1, -1)
            side = self.input_size
            if images.shape[-2:] != (side, side):
                smaller = max(images.shape[-2:]) > side
                images = F.interpolate(images, (side, side), mode="bilinear", antialias=smaller)
            return self._run(list(self._stages.body)[: self._first_trained], (self.normalise(images),))

    def _run(self, stages: Sequence[str], state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        for stage in stages:
            result = self._pass(self._stages.body[stage], state[0])
            state = (state[0], result) if stage == self._stages.side else (result, *state[1:])
        return state

    def _heads(self, state: tuple[Tensor, ...]) -> list[Tensor]:
        """Return the logits of the main head and, in training, of the auxiliary one."""
        heads = self._stages.heads if self.training else self._stages.heads[:1]
        return [self._pass(steps, x) for steps, x in zip(heads, state, strict=False)]

    def _pass(self, steps: Sequence[str], x: Tensor) -> Tensor:
        for name in steps:
            x = STEPS[name](x) if name in STEPS else self.network.get_submodule(name)(x)
        return x

    def on_fit_start(self) -> None:
        super().on_fit_start()
        # Lightning warns of modules in evaluation mode; here they are frozen on purpose.
        warnings.filterwarnings("ignore", message=r"Found \d+ module\(s\) in eval mode")
        if self._is_random and self._untrained:
            rank_zero_warn(
                f"{type(self).__name__}: {', '.join(self._untrained)} are frozen with random weights "
                "(weights is None): pass --model.weights default, or --model.train all."
            )
        data = getattr(self.trainer, "datamodule", None)
        given = tuple(getattr(data, "mean", IMAGENET_MEAN)), tuple(getattr(data, "std", IMAGENET_STD))
        if self._wants_imagenet and self.in_channels == 3 and given != (IMAGENET_MEAN, IMAGENET_STD):
            rank_zero_warn(
                f"{type(self).__name__}: published weights need images normalised by ImageNet's mean "
                f"{list(IMAGENET_MEAN)} and std {list(IMAGENET_STD)}, but the data use {list(given[0])} and "
                f"{list(given[1])}: set --data.mean and --data.std."
            )

    def on_train_start(self) -> None:
        super().on_train_start()
        self._features = None
        if self.cache == "never" or self._first_trained == 0:
            return
        plan = Plan(self.trainer, self.cache, blended=self._mix is not None)
        start = time.perf_counter()
        path = run_folder(self.trainer) / "features.bin"
        self._features, message = fill(self.trainer, plan, self._packed, place=self.cache, path=path)
        if self._features is not None:
            message += f", in {time.perf_counter() - start:.1f} s"
        for line in filter(None, (plan.note, message)):
            rank_zero_info(f"{type(self).__name__}: {line}")

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        cached = self._modules_of(list(self._stages.body)[: self._first_trained])
        thawed = any(each.requires_grad for module in cached for each in module.parameters())
        if self._features is not None and thawed:
            self._features = None
            rank_zero_info(f"{type(self).__name__}: frozen stages are trained now, cached features are discarded")

    def teardown(self, stage: str) -> None:
        super().teardown(stage)
        self._features = None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        if checkpoint.get("hyper_parameters"):  # the checkpoint contains all weights: others need not be loaded
            checkpoint["hyper_parameters"] = {**checkpoint["hyper_parameters"], "weights": None}

    @contextmanager
    def _using_features(self) -> Iterator[None]:
        """Use cached features in the context only, since the hooks of other calls need the outputs of all layers."""
        self._uses_features = True
        try:
            yield
        finally:
            self._uses_features = False

    def _packed(self, images: Tensor) -> Tensor:
        """Return the output of the frozen stages as rows (N, D)."""
        state = self._frozen(images)
        self._shapes = [part.shape[1:] for part in state]
        return torch.cat([part.flatten(1) for part in state], 1)

    def _unpacked(self, rows: Tensor) -> tuple[Tensor, ...]:
        parts = torch.split(rows, [shape.numel() for shape in self._shapes], 1)
        return tuple(part.reshape(-1, *shape) for part, shape in zip(parts, self._shapes, strict=True))
