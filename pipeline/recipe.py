"""What counts as a bad part of one product: the page a quality engineer fills in."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0, le=1)]
GreyLevel = Annotated[float, Field(ge=0, le=255)]


class _Page(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class DefectRule(_Page):
    """When a class of defects makes a part fail.

    Attributes:
        fail: voted score from which a defect counts; None takes the bundle's threshold.
        unsure: voted score from which the part is UNSURE; None takes the bundle's threshold.
        min_size_px: smaller defects (longer side of the box) are not counted.
        allow: this many counted defects are tolerated.
    """

    fail: Share | None = None
    unsure: Share | None = None
    min_size_px: Annotated[float, Field(ge=0)] = 0.0
    allow: Annotated[int, Field(ge=0)] = 0


class Zone(_Page):
    """A rectangle on the part in which some classes are not counted.

    Attributes:
        xyxy: left, top, right, bottom as shares of the part's width and height, 0..1.
        ignore: labels that do not count when a defect's centre lies inside; empty means all.
    """

    name: str
    xyxy: tuple[Share, Share, Share, Share]
    ignore: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _has_an_area(self) -> "Zone":
        x0, y0, x1, y1 = self.xyxy
        if x0 >= x1 or y0 >= y1:
            raise ValueError("a zone needs left < right and top < bottom")
        return self


class Recipe(_Page):
    """The rules of one product.

    Attributes:
        defects: rule per label; a label that is not named follows the bundle's thresholds.
        min_views: a part seen whole in fewer pictures is UNSURE.
        brightness: least and most grey level, 0..255, of the bright places of a part (99 % of it
            are darker); outside of it the station is not ready and parts are UNSURE. None takes
            half and twice of what the first parts of a belt show.
    """

    name: str = Field(pattern="^[a-z0-9][a-z0-9_-]*$")
    defects: dict[str, DefectRule] = {}
    zones: tuple[Zone, ...] = ()
    min_views: Annotated[int, Field(ge=1)] = 1
    brightness: tuple[GreyLevel, GreyLevel] | None = None

    @model_validator(mode="after")
    def _brightness_is_a_range(self) -> "Recipe":
        if self.brightness is not None and self.brightness[0] >= self.brightness[1]:
            raise ValueError("brightness: the least must lie below the most")
        return self
