"""Weight decomposition (SLIP, arXiv 2407.10886; SLIP-SEC, arXiv 2510.24999) as a defense: the secret is the weights.

The trusted side keeps the top singular components of every linear layer; the device stores the rest as integers and
multiplies masked vectors by it, exactly, modulo a prime. What an integer stands for stays with the trusted side. The
section bodies of both papers were out of reach: the protocol here is reconstructed from their abstracts and summaries
(see ``rounds``), and every number is our own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from dataclasses import field as attribute
from functools import cached_property
from pathlib import Path

from smd_research.boundary import Boundary
from smd_research.core.errors import ConfigError
from smd_research.core.guarantee import Guarantee
from smd_research.core.observable import Observable
from smd_research.core.seeds import generator
from smd_research.defenses.base import NO_TEXT, Defense, Prepared, PublicText
from smd_research.defenses.slip.bank import MaskBank
from smd_research.defenses.slip.deployment import BoundaryDeployment, SlipDeployment
from smd_research.defenses.slip.masking import (
    MASKINGS,
    FieldMasking,
    FloatMasking,
    Masking,
    ReusedMasking,
    UniformMasking,
)
from smd_research.defenses.slip.parts import Halves, parts_of
from smd_research.defenses.slip.products import discover
from smd_research.defenses.slip.rounds import Rounds
from smd_research.defenses.slip.spec import SplitSpec
from smd_research.defenses.slip.storage import FolderStorage, MaskStorage, MemoryStorage
from smd_research.mechanisms.decomposition.parameters import DecompositionParameters, SecretParts
from smd_research.mechanisms.integers.field import FIELDS
from smd_research.mechanisms.integers.fixed_point import BITS, FixedPoint
from smd_research.mechanisms.integers.freivalds import Challenge
from smd_research.mechanisms.integers.masks import KEY_BYTES, MaskStream
from smd_research.mechanisms.integers.parameters import ProtocolParameters
from smd_research.models.bundle import Bundle

_ALWAYS = frozenset({Observable.EXPOSED_WEIGHTS, Observable.TOKEN_IDS, Observable.OUTPUT_TOKENS, Observable.LENGTH})
SHOWS = {
    "strict": _ALWAYS | {Observable.MASKED_ACTIVATIONS},
    "boundary": _ALWAYS | {Observable.PLAIN_PRODUCTS, Observable.LOGITS},
}
BANKS = ("memory", "folder")


def _held(prepared: "SlipPrepared") -> Bundle:
    """The model as the device holds it."""
    return prepared.parts.held(prepared.bundle)


@dataclass(frozen=True, repr=False, eq=False, kw_only=True)
class SlipPrepared(Prepared):
    """A model in two parts, of which the device gets one (``public``).

    The secret key comes from the seed; uniform masks come also from a nonce that every deployment draws anew.

    Attributes:
        defense: the configuration.
        parts: the two halves of every product.
    """

    defense: "Slip"
    parts: Halves

    # made when it is asked for: beside the two parties it would be one more model in floats
    public: Bundle = attribute(init=False, default=cached_property(_held))  # type: ignore[assignment]

    def deploy(self, boundary: Boundary) -> SlipDeployment | BoundaryDeployment:
        """Start the two parties."""
        if self.defense.visibility == "boundary":
            return BoundaryDeployment(self.bundle, boundary, self.parts, self.shows)
        field, parts, verify = FIELDS[self.defense.field], self.parts, self.defense.verify
        stream = MaskStream(generator(self.seed, "slip", "masks").bytes(KEY_BYTES))
        challenges = {
            number: Challenge.draw(stream.child("challenges"), weights, field, verify, number)
            for number, weights in parts.integers.items()
            if verify
        }
        points = {number: FixedPoint.of(one.weights, one.scale, field) for number, one in parts.exposed.items()}
        rounds = Rounds(field, parts.secrets, points, self._masking(stream, points), challenges)
        return SlipDeployment(self.bundle, boundary, parts, rounds, field, self.shows)

    def _masking(self, stream: MaskStream, points: Mapping[int, FixedPoint]) -> Masking:
        defense, integers = self.defense, self.parts.integers
        field = FIELDS[defense.field]
        if defense.masking == "none":
            return FieldMasking(field)
        if defense.masking == "reused":
            return ReusedMasking(field, stream, integers)
        if defense.masking == "float":
            return FloatMasking(points, integers, self.seed)
        storage: MaskStorage = MemoryStorage(integers)
        if defense.bank_folder is not None:
            at = next(iter(integers.values())).device
            storage = FolderStorage(Path(defense.bank_folder).expanduser(), integers, at)
        return UniformMasking(field, MaskBank(stream, field, integers, storage, defense.masks))


class Slip(Defense):
    """Weight decomposition.

    The secret key comes from the seed that ``prepare`` is given, uniform masks also from a nonce that every deployment
    draws anew: no two send the same mask, and no number of a cell depends on one. Nothing here secures production
    traffic by itself.

    Args:
        rank: secret components of each target (fixed rule), and of each layer that a budget buys.
        rule: ``fixed``, ``energy`` or ``budget``; see ``SplitSpec``, as for the next five.
        energy: share of the squared singular values that the energy rule keeps secret.
        budget: secret parameters as a share of all, for the budget rule.
        targets: which layers keep a part.
        blocks: in which blocks; None: in all.
        split: kind of split; ``svd`` is SLIP.
        bits: of an exposed weight: 16, 8, 4; None keeps floats, with ``visibility=boundary`` only.
        field: ``wide`` (2^41 - 21) or ``narrow`` (2^33 - 9, for 8 bits and fewer: one limb instead of two).
        visibility: ``strict``: every product is masked, all else runs at the trusted side; ``boundary``: the device
            runs the exposed model in the clear and asks for the secret part's products, which gives it away.
        masking: ``uniform``; ``none``, ``reused`` and ``float`` are demonstrations of what the guarantee rests on.
        verify: repetitions of Freivalds' check on every product; 0 leaves products and look-ups unchecked (a
            demonstration).
        masks: rows of each product that masks are prepared for at deployment, after which the bank is exhausted; None
            prepares them request by request.
        bank: ``memory`` or ``folder``.
        bank_folder: where, for ``bank=folder``: masks lie there while a session lasts; those of earlier ones are
            removed.

    Raises:
        ConfigError: for a value out of range, or options that do not go together.
    """

    def __init__(
        self,
        rank: int = 8,
        rule: str = "fixed",
        energy: float = 0.5,
        budget: float = 0.01,
        targets: str = "all",
        blocks: Sequence[int] | None = None,
        split: str = "svd",
        bits: int | None = 16,
        field: str = "wide",
        visibility: str = "strict",
        masking: str = "uniform",
        verify: int = 2,
        masks: int | None = None,
        bank: str = "memory",
        bank_folder: str | None = None,
    ) -> None:
        for name, value, known in (
            ("bits", bits, (*BITS, None)),
            ("field", field, FIELDS),
            ("visibility", visibility, SHOWS),
            ("masking", masking, MASKINGS),
            ("bank", bank, BANKS),
        ):
            if value not in known:
                words = ", ".join("null" if word is None else str(word) for word in known)
                raise ConfigError(f"defense.{name}={value} is unknown: use one of {words}")
        self.spec = SplitSpec(targets, blocks, rank, rule, energy, budget, split)  # type: ignore[arg-type]
        self.bits = bits
        self.field = field
        self.visibility = visibility
        self.masking = masking
        self.verify = verify
        self.masks = masks
        self.bank = bank
        self.bank_folder = bank_folder
        self._check()

    def _check(self) -> None:
        if self.visibility == "strict" and self.bits is None:
            raise ConfigError("defense.bits=null keeps floats, which cannot be masked exactly: use visibility=boundary")
        if self.field == "narrow" and self.bits not in (8, 4):
            raise ConfigError("defense.field=narrow takes weights of 8 bits or fewer: set defense.bits=8")
        if self.masking == "float" and self.verify:
            raise ConfigError("defense.masking=float rounds, so that replies cannot be checked: set defense.verify=0")
        if self.verify < 0:
            raise ConfigError(f"defense.verify={self.verify} is out of range: it counts from 0")
        if self.masks is not None and self.masks < 1:
            raise ConfigError(f"defense.masks={self.masks} is out of range: at least 1, or null to prepare as needed")
        if (self.bank == "folder") != (self.bank_folder is not None):
            raise ConfigError("defense.bank=folder and defense.bank_folder=DIR go together")

    @property
    def shows(self) -> frozenset[Observable]:
        return SHOWS[self.visibility]

    def prepare(
        self, bundle: Bundle, public_text: PublicText = NO_TEXT, seed: int = 0, folder: Path | None = None
    ) -> SlipPrepared:
        products = discover(bundle)
        ranks = self.spec.ranks(bundle, public_text.corpus)
        parts = parts_of(bundle, products, ranks, self.spec.kind, self.bits, seed)
        return SlipPrepared(
            bundle=bundle,
            base=None,
            parameters=self._parameters(parts),
            guarantee=self._guarantee(),
            shows=self.shows,
            seed=seed,
            defense=self,
            parts=parts,
        )

    def _parameters(self, parts: Halves) -> tuple[object, ...]:
        spec = {name: value for name, value in asdict(self.spec).items() if name != "kind"}
        chosen = DecompositionParameters(**spec, split=self.spec.kind, bits=self.bits)
        protocol = ProtocolParameters(self.field, self.visibility, self.masking, self.verify, self.masks, self.bank)
        secret = SecretParts(tuple(product.layers for product in parts.products), dict(parts.ranks))
        return chosen, protocol, secret

    def _guarantee(self) -> Guarantee | None:
        """What the masks promise, computationally: nothing about how much the exposed weights tell by themselves."""
        if self.visibility != "strict" or self.masking != "uniform":
            return None
        prime = FIELDS[self.field].prime
        integrity = (
            f"a wrong reply passes with probability below {float(prime) ** -self.verify:.1e}"
            if self.verify
            else "replies are not checked: the device must follow the protocol"
        )
        return Guarantee(
            notion="masked activations indistinguishable from uniform residues (computational, ChaCha20)",
            unit="session",
            epsilon=0.0,
            composition=f"{integrity}; each mask is used once, over all sessions: each draws its own nonce",
            assumptions=(
                "the stream cipher, a secret key, the operating system's randomness, no memory image of a running "
                "session that is resumed twice, non-linear steps at the trusted side; the exposed weights, the token "
                "ids and the outputs are the device's and may tell of the secret part: that is measured, not promised"
            ),
            verified="tests/defenses/test_slip_uniform.py",
            source="arXiv 2510.24999 (reconstructed)",
        )
