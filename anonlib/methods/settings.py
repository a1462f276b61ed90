"""What may replace a face: the job file's `method`, and the families that methods belong to."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

MethodName = Literal[
    "k-diff",
    "k-same",
    "dp-laplace",
    "dp-vmf",
    "dp-purkayastha",
    "dp-uniform",
    "sampling",
    "surrogate",
    "embedding",
    "inswapper",
    "solid",
    "blur",
    "pixelate",
]
CLASS_METHODS = frozenset({"k-diff", "k-same"})
"""A class of k subjects wears one face."""
VECTOR_METHODS = frozenset({"dp-laplace", "dp-vmf", "dp-purkayastha", "dp-uniform", "sampling", "surrogate"})
"""Every subject gets an identity vector of its own, which a decoder turns into a face."""
CROP_METHODS = frozenset({"embedding", "inswapper"})
"""Every subject gets a donor, whose features a network puts into the face's own crop."""
SYNTHESIS_METHODS = CLASS_METHODS | VECTOR_METHODS | CROP_METHODS
METHOD_FILES = ("decoder", "swapper", "recognizer", "donors")
"""Keys of a method that say where something lies: what is in it counts, and releases name its sha256 instead."""
STILL_RECOGNIZED = "people can still recognize these faces"
"""What a job must say for `embedding`, which deceives machines alone."""


class MethodConfig(BaseModel):
    """What replaces a face, and what it may cost the person's privacy."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: MethodName = Field(default="k-diff", description="What replaces a face (docs/methods.md).")
    k: int = Field(default=5, ge=2, le=1000, description="The least number of people that share one new face.")
    texture: Literal["average", "linear", "bank", "ksame-net"] | None = Field(
        default=None, description="How a new face is made."
    )
    decoder: str | None = Field(default=None, description="The decoder file that `anonlib fit-decoder` wrote.")
    epsilon: float | None = Field(
        default=None, gt=0, description="Of dp-laplace (a release) and dp-purkayastha (a radian)."
    )
    kappa: float | None = Field(default=None, gt=0, description="Of dp-vmf, a unit of Euclidean distance.")
    own_angle: float = Field(
        default=75.0, gt=0, lt=180, description="Degrees between a sampled identity and its subject."
    )
    other_angle: float = Field(
        default=50.0, gt=0, lt=180, description="Degrees between a sampled identity and everybody else."
    )
    draw: Literal["fresh", "reuse"] = Field(
        default="fresh", description="reuse: a person keeps the face of an earlier release."
    )
    accept: str | None = Field(
        default=None, description="Of embedding: that people can still recognize these faces, in these words."
    )
    swapper: str | None = Field(default=None, description="Of inswapper: your swapper's .onnx file.")
    recognizer: str | None = Field(
        default=None, description="Of inswapper: the ArcFace .onnx that the swapper was made for."
    )
    donors: str | None = Field(
        default=None, description="Of inswapper: photos of people who agreed to lend their faces."
    )

    @model_validator(mode="after")
    def _fits(self) -> MethodConfig:
        for field, methods in (("epsilon", ("dp-laplace", "dp-purkayastha")), ("kappa", ("dp-vmf",))):
            given = getattr(self, field) is not None
            if given != (self.name in methods):
                raise ValueError(
                    f"{field} belongs to {' and '.join(methods)}, which need it; the method is {self.name}"
                )
        if self.name in VECTOR_METHODS and self.texture == "average":
            raise ValueError(f"{self.name} draws an identity vector; its texture is not average")
        if self.needs_decoder and not self.decoder and self.texture_name != "ksame-net":
            raise ValueError(f"{self.name} with this texture needs a decoder; make one with `anonlib fit-decoder`")
        self._fits_crops()
        return self

    def _fits_crops(self) -> None:
        if self.name == "embedding" and self.accept != STILL_RECOGNIZED:
            raise ValueError(
                "embedding deceives recognizers and not people, so it anonymizes nobody; "
                f'if that is what you want, say so by accept: "{STILL_RECOGNIZED}"'
            )
        if self.name != "embedding" and self.accept is not None:
            raise ValueError(f"accept belongs to embedding; the method is {self.name}")
        given = [name for name in ("swapper", "recognizer", "donors") if getattr(self, name) is not None]
        if self.name == "inswapper" and len(given) < 3:
            raise ValueError(
                "inswapper needs three things of yours: swapper and recognizer, the .onnx files of a swapper and of "
                "the ArcFace that it was made for, and donors, photos of people who agreed to lend it their faces"
            )
        if self.name != "inswapper" and given:
            raise ValueError(f"{' and '.join(given)} belong to inswapper; the method is {self.name}")
        if self.name in CROP_METHODS and self.texture is not None:
            raise ValueError(f"{self.name} changes the face's own px and has no texture")

    @property
    def texture_name(self) -> str:
        """The texture, or the method's own: a class averages its members, a vector is decoded."""
        return self.texture or ("linear" if self.name in VECTOR_METHODS else "average")

    @property
    def needs_decoder(self) -> bool:
        """Whether faces are decoded from vectors."""
        return self.name in VECTOR_METHODS or (self.name in CLASS_METHODS and self.texture_name != "average")
