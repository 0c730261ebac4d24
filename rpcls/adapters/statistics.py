"""LayerStatistics: a layer is compressed once; then any adapter is fitted."""

from __future__ import annotations

import os
from typing import Any, ClassVar

import numpy as np

from ..errors import FormatError, InvalidTypeError, InvalidValueError
from ..kernels import on_host
from ..random import RandomLike
from ..sketches import SketchFamily, SketchOperator
from .accumulators import Accumulator, Exact, Frozen, Full, Partial, Thin
from .arrays import check_finite, count, matrix, narrow, number, plain, tokens, wide
from .places import card_of, check_place, module_of, working_on
from .quadratic import Projected, Quadratic

__all__ = ["LayerStatistics"]

_CHUNK = 8192  # tokens converted to float64 at a time
_FORMS = ("full", "partial", "robust-partial")


class LayerStatistics:
    """What fits of one layer need: C = XᵀX, R = ZᵀX, ‖Z‖² and the number of tokens.

    X (tokens × in_features) are the layer's inputs and Z (tokens × out_features) what the update should add to its
    outputs: f(dW) = ‖XdWᵀ − Z‖² = tr(dW C dWᵀ) − 2⟨dW, R⟩ + ‖Z‖².

    Parameters
    ----------
    in_features, out_features : int
        i and o.
    weight : (o, i) array_like, optional
        The frozen W₀. With it, `update` takes the wanted outputs Y, and Z = Y − XW₀ᵀ − bias; without it, `update`
        takes Z.
    bias : (o,) array_like, optional
        Only with `weight`.
    sketch : SketchFamily or SketchOperator, optional
        Sketch the tokens instead of summing over them; one operator for all shards of a layer.
    sketch_size : int, optional
        With a family: rows of the sketch. `token_sketch_size` gives a rule.
    form : {"full", "partial", "robust-partial"}, default "full"
        With a sketch. "full": C, R and ‖Z‖² from SX and SZ, the cheapest. "partial": C from SX; R and ‖Z‖² exact.
        "robust-partial": the partial form with the ridge and the shrinkage that `rpcls.RobustPartiallyCompressed`
        chooses for the outputs (the medians over them), for a sketch with few rows.
    thin : (r, i) array_like, optional
        Keep P = ACAᵀ and Q = RAᵀ for this A only: for families that see the inputs through one fixed A
        (``family.projection(in_features)``). Per token 2r(i + o + r) flops; with `weight` also 2oi, the layer's own
        product, for ‖Z‖². A model that runs anyway knows its output: hand over Z, and no weight.
    rng : int, SeedSequence, Generator, Key or None
        With a family: fixes the sketch.
    first_token : int, default 0
        With a sketch: the number of this shard's first token among all, so that shards add up.

    Notes
    -----
    Products are float64, whatever the activations are: real activations have condition numbers up to 1e4, so that
    float32 sums of squares would lose C's small directions. (Sums of float32 tokens in a sketch of the "full" form are
    float32: they have no squares, and are as near as those tokens.) R = YᵀX − W₀C − bias·1ᵀX, so Z is never formed at
    full size; ‖Z‖² comes from the same sums and loses about 2·log10(‖Y‖/‖Z‖) of its 16 digits.

    Cost: i² + 2oi flops a token, and i² + oi numbers; of a "full" sketch i + o additions (times `nnz_per_column`) a
    token, and in every batch, as in memory, some times sketch_size·(i + o): take batches of several times sketch_size
    tokens. The other forms of a sketch still pay for R.

    Batches of CuPy arrays are summed on their card, as are torch tensors there, whose memory CuPy shares (without CuPy
    they are copied to the host). The sums stay there until they are read, and what is read is on the host. Fits of
    `LoRA`, `MELoRA` and `AdaMix`, and of `RandLoRA`, `NOLA` and `VeRA` with many unknowns, do their work on that card,
    the others on the host.

    Examples
    --------
    >>> import numpy as np
    >>> from rpcls.adapters import LayerStatistics
    >>> rng = np.random.default_rng(0)
    >>> W, X = rng.standard_normal((3, 5)), rng.standard_normal((100, 5))
    >>> wanted = X @ (W + 1).T
    >>> s = LayerStatistics(5, 3, weight=W)
    >>> s.update(X[:60], wanted[:60]).update(X[60:], wanted[60:])
    LayerStatistics(5, 3, weight given, exact, tokens=100)
    >>> bool(np.allclose(s.R, s.C.sum(axis=0))), round(s.explained(np.ones((3, 5))), 12)
    (True, 1.0)
    """

    FORMAT: ClassVar[str] = "rpcls.LayerStatistics"
    FORMAT_VERSION: ClassVar[int] = 1

    def __init__(
        self,
        in_features: int,
        out_features: int,
        weight: Any = None,
        bias: Any = None,
        *,
        sketch: SketchFamily | SketchOperator | None = None,
        sketch_size: int | None = None,
        form: str = "full",
        thin: Any = None,
        rng: RandomLike = None,
        first_token: int = 0,
    ) -> None:
        i, o = count(in_features, "in_features"), count(out_features, "out_features")
        if weight is not None:
            weight = matrix(weight, "weight", (o, i), "(out_features, in_features)")
        if bias is not None:
            if weight is None:
                raise InvalidValueError("bias is what the frozen layer adds to XW₀ᵀ, so it needs weight; got no weight")
            bias = wide(plain(bias, "bias"))
            if bias.shape != (o,):
                raise InvalidValueError(f"bias must have shape (out_features,) = ({o},), got {bias.shape}")
            check_finite(bias, "bias")
        self._frozen = self._frozen_there = Frozen(weight, bias)
        self._card: int | None = None  # on which the sums are
        self.in_features, self.out_features = i, o
        self.first_token = count(first_token, "first_token", 0)
        self.tokens = 0
        if form not in _FORMS:
            raise InvalidValueError(f"form must be one of {', '.join(map(repr, _FORMS))}, got {form!r}")
        self.form = form if sketch is not None else "thin" if thin is not None else "exact"
        if thin is not None:
            if sketch is not None:
                raise InvalidValueError("thin and sketch exclude each other: thin statistics are small already")
            self._sums: Accumulator = Thin(i, o, matrix(thin, "thin", (None, i), "(r, in_features)"))
            return
        if sketch is None:
            if sketch_size is not None:
                raise InvalidValueError("sketch_size needs a sketch, such as sketch=rpcls.SparseSign()")
            self._sums = Exact(i, o)
            return
        operator = _operator(sketch, sketch_size, rng)
        robust = form == "robust-partial"
        self._sums = Full(i, o, operator) if form == "full" else Partial(i, o, operator, robust=robust)

    # -- reading tokens -----------------------------------------------------------------------------------------

    def update(self, X: Any, Y: Any = None) -> LayerStatistics:
        """Add a batch of tokens.

        Parameters
        ----------
        X : (…, i) array_like, CuPy array or torch tensor
            The layer's inputs, of any float type; leading dimensions are flattened.
        Y : (…, o) array_like, CuPy array or torch tensor, optional
            With `weight` the wanted outputs, else what the update should add to them; None (without `weight`): nothing.
            Statistics of inputs alone are for ``from_delta(inputs=…)``.

        Returns
        -------
        LayerStatistics
            Itself.

        Raises
        ------
        InvalidValueError, InvalidTypeError
            Shapes that do not fit, no real numbers, or arrays that are not all on the host or all on one card, those of
            the batches before included.
        NonFiniteError
            NaN or infinity. The statistics are as they were before the call.
        """
        X = _tokens(X, "X", self.in_features, "in_features")
        if Y is None and self.weight is not None:
            raise InvalidValueError("Y must be given: with a weight it is the wanted output; got None")
        if Y is None:
            xp = module_of(X)
            Y = xp.broadcast_to(xp.zeros(()), (len(X), self.out_features))
        Y = _tokens(Y, "Y", self.out_features, "out_features")
        if len(X) != len(Y):
            raise InvalidValueError(f"X and Y must have the same number of tokens, got {len(X)} and {len(Y)}")
        check_place(X, Y, self._card, self.tokens > 0)
        with working_on(X):
            self._add(X, Y)
        return self

    def _add(self, X: Any, Y: Any) -> None:
        check_finite(X, "X")
        check_finite(Y, "Y")
        if (card := card_of(X)) != self._card:  # the first batch
            to = on_host if card is None else module_of(X).asarray
            self._sums, self._card = self._host_sums.sent(to), card
            self._frozen_there = self._frozen.sent(to) if self._sums.predicts else self._frozen
        first, frozen = self.first_token + self.tokens, self._frozen_there
        if self._sums.whole:
            self._sums.update(narrow(X), narrow(Y), first, frozen)
        else:
            sums = self._sums if len(X) <= _CHUNK else self._sums.copy()
            for start in range(0, len(X), _CHUNK):
                part = slice(start, start + _CHUNK)
                sums.update(wide(X[part]), wide(Y[part]), first + start, frozen)
            self._sums = sums
        self.tokens += len(X)

    @property
    def card(self) -> int | None:
        """The number of the card that holds the sums; None: they are in host memory."""
        return self._card

    @property
    def _host_sums(self) -> Accumulator:
        return self._sums if self._card is None else self._sums.sent(on_host)

    @classmethod
    def from_delta(cls, delta: Any, *, inputs: Any = None) -> LayerStatistics:
        """The statistics of a known update T.

        Parameters
        ----------
        delta : (o, i) array_like
            T.
        inputs : (…, i) array_like or LayerStatistics, optional
            Calibration inputs X, or statistics that have seen them (exact ones): C = XᵀX, R = TC. Without them C = I
            and R = T: every direction of weight space counts alike.

        Returns
        -------
        LayerStatistics
            Without weight; updates add tokens to it.

        Examples
        --------
        >>> import numpy as np
        >>> from rpcls.adapters import LayerStatistics
        >>> s = LayerStatistics.from_delta(np.ones((2, 3)))
        >>> s.energy, s.explained(np.full((2, 3), 0.5))
        (6.0, 0.75)
        """
        T = matrix(delta, "delta", (None, None), "(out_features, in_features)")
        o, i = T.shape
        result = cls(i, o)
        sums = result._sums
        assert isinstance(sums, Exact)
        if inputs is None:
            sums.gram, sums.cross = np.eye(i), T.copy()
            result.tokens = i
        else:
            if not isinstance(inputs, LayerStatistics):
                inputs = cls(i, 1).update(_tokens(inputs, "inputs", i, "in_features"))
            source = inputs._host_sums
            if not isinstance(source, Exact) or inputs.in_features != i:
                raise InvalidValueError(
                    f"inputs must be exact statistics of a layer with {i} inputs, got {inputs!r}; "
                    "collect them without a sketch"
                )
            sums.gram, sums.cross = source.gram.copy(), T @ source.gram
            sums.input_sum, sums.target_sum = source.input_sum.copy(), T @ source.input_sum
            result.tokens = inputs.tokens
        sums.target_squares = np.asarray(np.vdot(sums.cross, T))
        return result

    # -- what fits read -----------------------------------------------------------------------------------------

    @property
    def weight(self) -> np.ndarray | None:
        """W₀ (o, i) in float64, or None."""
        return self._frozen.weight

    def objective(self, ridge: float = 0.0, preserve: Any = None) -> Quadratic | Projected:
        """f as a function of dW, plus ridge·mean(diag C)·‖dW‖² and tr(dW·preserve·dWᵀ).

        Parameters
        ----------
        ridge : float, default 0.0
            Relative to the mean of C's diagonal.
        preserve : (i, i) array_like or LayerStatistics, optional
            C₀ of inputs whose outputs should not change, times the weight it should have.
        """
        ridge = number(ridge, "ridge")
        if self.tokens == 0:
            raise InvalidValueError("these statistics are empty: call update(X, Y) first")
        sums = self._host_sums
        f = sums.objective(self._frozen, self.tokens)
        if isinstance(f, Projected):
            assert isinstance(sums, Thin)
            if preserve is not None:
                raise InvalidValueError("thin statistics cannot preserve: they know no C; collect LayerStatistics")
            mean = float(sums.input_squares) / self.in_features
            inner = Quadratic(f.inner.C + (ridge * mean) * (f.A @ f.A.T), f.inner.R, f.inner.energy)
            return Projected(f.A, inner)
        if ridge == 0 and preserve is None:
            return f
        C = f.C.copy()
        if preserve is not None:
            C0 = preserve.C if isinstance(preserve, LayerStatistics) else preserve
            C0 = matrix(C0, "preserve", C.shape, "(in_features, in_features)")
            if not np.allclose(C0, C0.T, rtol=1e-6, atol=1e-9 * np.abs(C0).max(initial=0.0)):
                raise InvalidValueError("preserve must be symmetric: C₀ = X₀ᵀX₀ of the inputs to preserve")
            C += (C0 + C0.T) / 2
        C[np.diag_indices_from(C)] += ridge * float(np.trace(f.C)) / len(C)
        return Quadratic(C, f.R, f.energy)

    def _full(self, name: str) -> Quadratic:
        f = self.objective()
        if isinstance(f, Projected):
            raise InvalidValueError(f"thin statistics have no {name}: they keep P = ACAᵀ and Q = RAᵀ only")
        return f

    @property
    def C(self) -> np.ndarray:
        """XᵀX (i, i), or the form's stand-in for it."""
        return self._full("C").C

    @property
    def R(self) -> np.ndarray:
        """ZᵀX (o, i)."""
        return self._full("R").R

    @property
    def energy(self) -> float:
        """‖Z‖²."""
        return self.objective().energy

    def explained(self, delta: Any) -> float:
        """The share of ‖Z‖² that an update explains: 1 − f(dW)/‖Z‖². Report it on statistics of held-out tokens.

        Parameters
        ----------
        delta : (o, i) array_like
            dW; or the dW of a result: ``result.delta()``.

        Returns
        -------
        float
            At most 1 (up to rounding and sketching); negative if the update is worse than none; 0 if Z is zero.
        """
        dW = matrix(delta, "delta", (self.out_features, self.in_features), "(out_features, in_features)")
        f = self._full("C")
        return 1.0 - f.value(dW) / f.energy if f.energy > 0 else 0.0

    # -- shards and files ---------------------------------------------------------------------------------------

    def __add__(self, other: LayerStatistics) -> LayerStatistics:
        if not isinstance(other, LayerStatistics):
            return NotImplemented
        if (self.in_features, self.out_features, self.form) != (other.in_features, other.out_features, other.form):
            raise InvalidValueError(
                f"statistics add up only for layers and forms that agree, got {self!r} and {other!r}"
            )
        for mine, its, name in zip(self._frozen, other._frozen, ("weight", "bias"), strict=True):
            same = mine is its or (mine is not None and its is not None and np.array_equal(mine, its))
            if not same:
                raise InvalidValueError(f"statistics add up only for the same {name}, and these differ")
        result = object.__new__(LayerStatistics)
        result.__dict__.update(self.__dict__)
        result._sums, result._card, result._frozen_there = self._host_sums.merge(other._host_sums), None, self._frozen
        result.tokens = self.tokens + other.tokens
        result.first_token = min(self.first_token, other.first_token)
        return result

    def __radd__(self, other: Any) -> LayerStatistics:
        return self if isinstance(other, int) and other == 0 else NotImplemented  # the start of sum()

    def __repr__(self) -> str:
        weight = "weight given, " if self._frozen.weight is not None else ""
        return f"LayerStatistics({self.in_features}, {self.out_features}, {weight}{self.form}, tokens={self.tokens})"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a .npz file (versioned, no pickle). An existing file is replaced only once all is written."""
        from . import files

        files.save(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> LayerStatistics:
        """Read what `save` wrote.

        Raises
        ------
        FormatError
            The file is truncated, not of LayerStatistics, or of another version.
        OSError
            The file cannot be opened.
        """
        from . import files

        result = files.load(path)
        if not isinstance(result, cls):
            raise FormatError(f"{path} does not hold LayerStatistics")
        return result


def _tokens(value: Any, name: str, features: int, meaning: str) -> Any:
    array = tokens(value, name)
    if array.ndim < 2 or array.shape[-1] != features:
        raise InvalidValueError(f"{name} must have shape (tokens, {meaning}) = (…, {features}), got {array.shape}")
    return array.reshape(-1, features)


def _operator(sketch: Any, sketch_size: Any, rng: RandomLike) -> SketchOperator:
    if isinstance(sketch, SketchOperator):
        if sketch_size is not None or rng is not None:
            raise InvalidValueError("sketch_size and rng must be None with an operator, which fixes them already")
        return sketch
    if not isinstance(sketch, SketchFamily):
        raise InvalidTypeError(f"sketch must be a family such as rpcls.SparseSign() or an operator, got {sketch!r}")
    if not sketch.mergeable:
        raise InvalidValueError(f"tokens come in batches, so the sketch must be mergeable, and {sketch!r} is not")
    if sketch_size is None:
        raise InvalidValueError("a sketch of tokens needs a size; token_sketch_size(unknowns, explained) gives one")
    return sketch.sample(sketch_size, rng=rng)
