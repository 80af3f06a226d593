"""Users' own modules and data, with other names and without classes of the package."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from lightning_cifar import callbacks

SIZE = 16


def pixels(channels: int = 3, size: tuple[int, int] = (8, 8)) -> Tensor:
    """Images that are not normalized: about -50 to 150."""
    return torch.rand(SIZE, channels, *size, generator=torch.Generator().manual_seed(1)) * 200 - 50


class Records(Dataset[dict[str, Tensor]]):
    """Samples are dicts."""

    def __init__(self, **columns: Tensor) -> None:
        self.columns = columns

    def __len__(self) -> int:
        return SIZE

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {name: column[index] for name, column in self.columns.items()}


class Stream(IterableDataset[Any]):
    """Without a length."""

    def __init__(self, samples: Any) -> None:
        self.samples = samples

    def __iter__(self) -> Iterator[Any]:
        return (self.samples[index] for index in range(SIZE))


class Plain(LightningModule):
    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        return self(batch[0])

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        return self.validation_step(batch, batch_idx)

    def predict_step(self, batch: Any, batch_idx: int) -> Any:
        return self(batch[0]).softmax(1)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01)


class Sorter(Plain):
    """Classifies images; training returns a tensor, evaluation the logits."""

    def __init__(self, channels: int = 3, size: tuple[int, int] = (8, 8)) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.ReLU())
        self.tail = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(4, 3))
        self.samples = TensorDataset(pixels(channels, size), torch.arange(SIZE) % 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(self.stem(x))

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return F.cross_entropy(self(batch[0]), batch[1])


class DictSorter(Plain):
    """Batches and outputs are dicts, ``forward`` contains the softmax, and ``training_step`` takes only a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
        self.samples = Records(pixels=pixels(), kind=torch.arange(SIZE) % 3)

    def forward(self, x: Tensor) -> Tensor:
        return F.softmax(self.body(x / 100), dim=1)

    def training_step(self, batch: Any) -> Any:
        return {"loss": F.nll_loss(self(batch["pixels"]).clamp_min(1e-6).log(), batch["kind"]), "note": "mine"}

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        return {"answer": self(batch["pixels"])}

    def predict_step(self, batch: Any, batch_idx: int) -> Any:
        return {"answer": self(batch["pixels"])}


class Segmenter(Plain):
    """Logits (N, K, H, W) for targets (N, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Conv2d(3, 4, 3, padding=1), nn.Sequential(nn.SiLU(), nn.Conv2d(4, 5, 1))
        self.samples = TensorDataset(pixels(), torch.arange(SIZE * 64).reshape(SIZE, 8, 8) % 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x / 100))

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return F.cross_entropy(self(batch[0]), batch[1])


class Line(Plain):
    """Numbers (N, 1) from numbers (N, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Dropout(0.1), nn.Linear(8, 1))
        x = torch.linspace(-1, 1, SIZE)[:, None]
        self.samples = TensorDataset(x, x.square())

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return F.mse_loss(self(batch[0]), batch[1])

    def predict_step(self, batch: Any, batch_idx: int) -> Any:
        return self(batch[0])


class Forger(Plain):
    """Manual optimization with two optimizers; ``forward`` takes noise, not images."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.maker = nn.Sequential(nn.Linear(4, 192), nn.Unflatten(1, (3, 8, 8)))
        self.critic = nn.Sequential(nn.Conv2d(3, 4, 3), nn.LeakyReLU(), nn.Flatten(), nn.Linear(144, 1))
        self.samples = TensorDataset(pixels() / 100)

    def forward(self, noise: Tensor) -> Tensor:
        return self.maker(noise)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        maker, critic = self.optimizers()
        forged = self(torch.randn(len(batch[0]), 4))
        for optimizer, loss in (
            (
                critic,
                lambda: F.softplus(self.critic(forged.detach())).mean() + F.softplus(-self.critic(batch[0])).mean(),
            ),
            (maker, lambda: F.softplus(-self.critic(forged)).mean()),
        ):
            optimizer.zero_grad()
            self.manual_backward(loss())
            optimizer.step()

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.log("realism", self.critic(batch[0]).mean())

    def predict_step(self, batch: Any, batch_idx: int) -> Any:
        return self(torch.randn(2, 4))

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(part.parameters(), lr=0.01) for part in (self.maker, self.critic)]


class Reader(Plain):
    """Maps tokens to a class, without convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(20, 8), nn.Linear(8, 2)
        self.layer = nn.TransformerEncoderLayer(8, 2, 8, batch_first=True)
        self.samples = TensorDataset(torch.arange(SIZE * 6).reshape(SIZE, 6) % 20, torch.arange(SIZE) % 2)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.layer(self.words(tokens)).mean(1))

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return F.cross_entropy(self(batch[0]), batch[1])


KINDS = {
    "sorter": Sorter,
    "dicts": DictSorter,
    "segmenter": Segmenter,
    "line": Line,
    "forger": Forger,
    "reader": Reader,
}
SETTINGS: dict[str, dict[str, Any]] = {
    "ActivationSnapshots": {"every_n_steps": 2, "max_frames": 2},
    "FitCurves": {"every_n_steps": 2, "max_frames": 2, "num_places": 10},
    "LRRangeFinder": {"num_steps": 10, "num_sweeps": 1},
    "OcclusionMaps": {"images": (0, 1), "window": 4, "stride": 4},
    "PredictionGrid": {"rows": 1, "columns": 2},
    "PredictionTable": {"rows": 1, "columns": 2, "sheets": 1, "lines": 2},
    "SampleGrid": {"rows": 1, "columns": 2},
    "LossCurves": {"val_loss": "realism"},
}


class Scribe(Logger):
    """A user's logger that only supports numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, float] = {}

    name = version = property(lambda self: None)

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.seen |= metrics

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        pass


class Run:
    """One trainer with callbacks, what they said, and what they left.

    What a hook raises is kept in ``error``; warnings are kept from the filters, those of the callbacks in ``said``.
    """

    def __init__(self, folder: Path, make_trainer: Callable[..., Trainer]) -> None:
        self.folder, self.make_trainer = folder, make_trainer
        self.error: Exception | None = None
        self.said: list[str] = []

    def __call__(self, name: str, kind: str | LightningModule, verb: str = "fit", **settings: Any) -> Run:
        self.use(self.make(name), KINDS[kind]() if isinstance(kind, str) else kind, verb, **settings)
        return self

    @staticmethod
    def make(kind: str, /, **changes: Any) -> Callback:
        made: Callback = getattr(callbacks, kind)(**(SETTINGS.get(kind, {}) | changes))
        return made

    @staticmethod
    def loader(module: Any, *, stream: bool = False, shuffle: bool = False) -> DataLoader[Any]:
        return DataLoader(Stream(module.samples) if stream else module.samples, batch_size=8, shuffle=shuffle)

    def use(self, *chosen: Any, data: Any = None, val: Any = "same", **settings: Any) -> Trainer:
        """``use(callback, ..., module, verb)``: ``val`` are the validation loaders; "stream" is for both stages."""
        *watchers, module, verb = chosen
        trainer = self.make_trainer(*watchers, **({"default_root_dir": self.folder, "max_epochs": 2} | settings))
        self.go(trainer, module, verb, data, val)
        return trainer

    def go(self, trainer: Trainer, module: Any, verb: str = "fit", data: Any = None, val: Any = "same") -> None:
        self.module, self.trainer, loader = module, trainer, self.loader(module)
        given: dict[str, Any] = {"datamodule": data} if data is not None else {"dataloaders": loader}
        if verb == "fit" and data is None:
            stream = val == "stream"
            train = self.loader(module, stream=stream, shuffle=not stream)
            given = {"train_dataloaders": train, "val_dataloaders": self.loader(module, stream=stream)}
            given |= {} if isinstance(val, str) else {"val_dataloaders": val}
        names = ("LearningRate", *callbacks.__all__)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                getattr(trainer, verb)(module, **given)
            except Exception as error:
                self.error = error
        texts = [str(warning.message) for warning in caught]
        self.said += [text for text in texts if text.startswith(names) or "learning-rate range" in text]

    @property
    def files(self) -> set[str]:
        found = (path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file())
        return {path for path in found if "/.frames/" not in path and "lightning_logs" not in path}


@pytest.fixture
def run(tmp_path: Path, make_trainer: Callable[..., Trainer]) -> Iterator[Run]:
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so little work is faster without the others
    yield Run(tmp_path / "run", make_trainer)
    torch.set_num_threads(threads)


@pytest.fixture
def kinds() -> dict[str, Callable[..., Any]]:
    return dict(KINDS)


@pytest.fixture
def make_logger(tmp_path: Path) -> Callable[[str], Any]:
    def make(kind: str) -> Any:
        if kind == "scalars only":
            return Scribe()
        return [each(tmp_path / "run", name="", version="") for each in (TensorBoardLogger, CSVLogger)]

    return make
