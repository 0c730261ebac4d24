"""What fits of adapters are measured against: truncated SVD, EoRA's formula, and gradient descent by Adam."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from rpcls.adapters import NOLA, LayerStatistics, RandLoRA, VeRA
from rpcls.adapters.family import Layer


def svd(T: np.ndarray, rank: int) -> np.ndarray:
    """The best approximation of T of a rank in weight space, blind to the inputs."""
    U, s, Vt = np.linalg.svd(T, full_matrices=False)
    return (U[:, :rank] * s[:rank]) @ Vt[:rank]


def eora(T: np.ndarray, C: np.ndarray, rank: int) -> np.ndarray:
    """EoRA's formula [1]: with C = QΛQᵀ project T into the eigenspace, truncate, and scale back: [TQΛ^½]ᵣ(QΛ^½)⁻¹.

    It is reduced-rank regression for a known T without a ridge. Eigenvalues below 1e-12 of the largest are dropped.

    [1] S.-Y. Liu et al., "EoRA: fine-tuning-free compensation for compressed LLM with eigenspace low-rank
    approximation", arXiv:2410.21271.
    """
    values, Q = np.linalg.eigh(C)
    kept = values > 1e-12 * values[-1]
    root, Q = np.sqrt(values[kept]), Q[:, kept]
    return svd(T @ (Q * root), rank) @ (Q / root).T


class Trained(ABC):
    """A family as torch trains it: parameters, and the factors L, A of dW = LA in float32."""

    theta: dict[str, torch.Tensor]

    @abstractmethod
    def factors(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """L (o, r) and A (r, i); None stands for I."""

    def delta(self) -> np.ndarray:
        with torch.no_grad():
            L, A = self.factors()
            return (L if A is None else L @ A).double().numpy()


def trained(family: Any, shape: tuple[int, int]) -> Trained:
    """The same bases and the same start as `rpcls.adapters.fit` has."""
    kinds = {RandLoRA: _RandLoRA, NOLA: _NOLA, VeRA: _VeRA}
    return kinds[type(family)](family.bind(Layer(*shape)))


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.tensor(np.asarray(array), dtype=torch.float32)


def _start(model: Any) -> dict[str, torch.Tensor]:
    from rpcls import Key

    return {name: _tensor(value).requires_grad_() for name, value in model.start(Key(0)).items()}


class _RandLoRA(Trained):
    def __init__(self, model: Any) -> None:
        assert not model.turned
        self.theta, self.scale = _start(model), model.scale
        self.A, self.B = _tensor(model.A), _tensor(model.Bf)

    def factors(self) -> tuple[torch.Tensor, None]:
        lam, gamma = self.theta["lambda"], self.theta["gamma"]
        scaled = self.A[:, None, :] * gamma * lam[:, :, None]
        return self.scale * (self.B @ scaled.reshape(-1, scaled.shape[2])), None


class _NOLA(Trained):
    def __init__(self, model: Any) -> None:
        self.theta, self.scale, self.A0 = _start(model), model.scale, _tensor(model.A0)
        self.A, self.B = (_tensor(stack.array * stack.scale) for stack in (model.A, model.B))

    def factors(self) -> tuple[torch.Tensor, torch.Tensor]:
        a, b = self.theta["a"], self.theta["b"]
        A = self.A0 + (a @ self.A.flatten(1)).view_as(self.A0)
        return self.scale * (b @ self.B.flatten(1)).view(self.B.shape[1:]), A


class _VeRA(Trained):
    def __init__(self, model: Any) -> None:
        self.theta = _start(model)
        self.A, self.B = _tensor(model.inner), _tensor(model.B)

    def factors(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.theta["b"][:, None] * self.B * self.theta["d"], self.A


@dataclass(frozen=True)
class Run:
    """One descent.

    Attributes
    ----------
    kind : {"minibatches", "C and R"}
    rate : float
        Of learning, at the start; a cosine takes it to zero.
    seconds, explained : list of float
        Of training alone, and the share of held-out energy explained after it.
    """

    kind: str
    rate: float
    seconds: list[float]
    explained: list[float]

    @property
    def best(self) -> float:
        return self.explained[-1] if np.isfinite(self.explained[-1]) else -math.inf


class Descent:
    """Adam on ‖XdWᵀ − Z‖² + ridge·mean(diag C)·‖dW‖², from tokens or from C and R.

    Parameters
    ----------
    X, Z : (tokens, i) and (tokens, o) arrays
    statistics, held_out : LayerStatistics
        Of these tokens, and of those that decide.
    ridge : float
        As in `rpcls.adapters.fit`.
    """

    def __init__(
        self, X: np.ndarray, Z: np.ndarray, statistics: LayerStatistics, held_out: LayerStatistics, ridge: float
    ) -> None:
        self.X, self.Z, self.held_out = _tensor(X), _tensor(Z), held_out
        f = statistics.objective(ridge)
        self.C, self.R = _tensor(f.C / f.energy), _tensor(f.R / f.energy)
        self.share = 1 / f.energy
        self._projected: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None
        self.ridge = ridge * float(np.trace(statistics.C)) / statistics.in_features / f.energy

    def run(self, family: Any, kind: str, rate: float, steps: int, batch: int = 512, looks: int = 20) -> Run:
        """Train for `steps` steps; the clock stands still while held-out energy is measured."""
        model = trained(family, (self.held_out.out_features, self.held_out.in_features))
        optimiser = torch.optim.Adam(list(model.theta.values()), lr=rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        draws = torch.Generator().manual_seed(0)
        marks = {round(steps * (j / looks) ** 2) or 1 for j in range(1, looks + 1)}
        seconds, explained, spent = [], [], 0.0
        began = time.perf_counter()
        for step in range(1, steps + 1):
            optimiser.zero_grad(set_to_none=True)
            L, A = model.factors()
            loss = self._of_tokens(L, A, batch, draws) if kind == "minibatches" else self._of_sums(L, A)
            loss.backward()
            optimiser.step()
            schedule.step()
            if step in marks:
                spent += time.perf_counter() - began
                seconds.append(spent)
                explained.append(self.held_out.explained(model.delta()))
                began = time.perf_counter()
        return Run(kind, rate, seconds, explained)

    def _of_sums(self, L: torch.Tensor, A: torch.Tensor | None) -> torch.Tensor:
        if A is None:
            C, R = self.C, self.R
        elif A.requires_grad:
            C, R = A @ self.C @ A.T, self.R @ A.T
        else:  # VeRA's: the same in every step
            if self._projected is None or self._projected[0] is not A:
                self._projected = A, A @ self.C @ A.T, self.R @ A.T
            C, R = self._projected[1:]
        return torch.sum(L * (L @ C - 2 * R))

    def _of_tokens(self, L: torch.Tensor, A: torch.Tensor | None, batch: int, draws: torch.Generator) -> torch.Tensor:
        here = torch.randint(len(self.X), (batch,), generator=draws)
        X, Z = self.X[here], self.Z[here]
        out = X @ L.T if A is None else (X @ A.T) @ L.T
        dW = L if A is None else L @ A
        return torch.sum((out - Z) ** 2) * (self.share * len(self.X) / batch) + self.ridge * torch.sum(dW**2)

    def tuned(self, family: Any, kind: str, rates: tuple[float, ...], steps: int, trial: int) -> Run:
        """The better of the two rates that did best in short runs, at full length."""
        short = sorted((self.run(family, kind, rate, trial, looks=1) for rate in rates), key=lambda r: -r.best)
        return max((self.run(family, kind, r.rate, steps) for r in short[:2]), key=lambda r: r.best)
