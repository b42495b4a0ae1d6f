"""Pydantic models of the three tables, with one field per column.

The models hold every rule of the database and a few rules that the database cannot check.
"""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Self
from uuid import UUID, uuid4

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    ValidationError,
    model_validator,
)


class ProjectType(StrEnum):
    """Kind of software."""

    API = "api"
    WEB_APP = "web_app"
    MOBILE_BACKEND = "mobile_backend"
    DATA_PIPELINE = "data_pipeline"
    MICROSERVICE = "microservice"


class ProjectStatus(StrEnum):
    """Life cycle of a project."""

    ACTIVE = "active"
    ARCHIVED = "archived"
    DELETED = "deleted"


class ModificationStatus(StrEnum):
    """How far a change request has come."""

    PENDING = "pending"
    APPROVED = "approved"
    APPLIED = "applied"
    FAILED = "failed"
    REJECTED = "rejected"


class TemplateCategory(StrEnum):
    """What a template is for."""

    API = "api"
    WEB = "web"
    MOBILE = "mobile"
    DATA = "data"
    MICROSERVICE = "microservice"


class Complexity(StrEnum):
    """How much there is to a template."""

    SIMPLE = "simple"
    MEDIUM = "medium"
    COMPLEX = "complex"


CATEGORY_FOR_PROJECT_TYPE: Mapping[ProjectType, TemplateCategory] = MappingProxyType(
    {
        ProjectType.API: TemplateCategory.API,
        ProjectType.WEB_APP: TemplateCategory.WEB,
        ProjectType.MOBILE_BACKEND: TemplateCategory.MOBILE,
        ProjectType.DATA_PIPELINE: TemplateCategory.DATA,
        ProjectType.MICROSERVICE: TemplateCategory.MICROSERVICE,
    }
)

#: Each status and the statuses that may follow. A status without an entry is final.
STEPS: Mapping[ModificationStatus, frozenset[ModificationStatus]] = MappingProxyType(
    {
        ModificationStatus.PENDING: frozenset(
            {ModificationStatus.APPROVED, ModificationStatus.REJECTED}
        ),
        ModificationStatus.APPROVED: frozenset(
            {ModificationStatus.APPLIED, ModificationStatus.FAILED}
        ),
    }
)


def _utc_now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _refuse_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be blank")
    return text


def _round_score(score: float) -> float:
    """Four decimals, rounded half away from zero as the column type numeric(5,4) does."""
    return math.floor(score * 10_000 + 0.5) / 10_000


Name = Annotated[str, StringConstraints(max_length=255), AfterValidator(_refuse_blank)]
Score = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False), AfterValidator(_round_score)]
Files = dict[str, str]
Json = dict[str, JsonValue]


class Row(BaseModel):
    """A row of a table: strict fields, and the conversion from and to a database row."""

    model_config = ConfigDict(extra="forbid", from_attributes=True, validate_assignment=True)

    #: Columns that arrive as text when a driver does not decode JSON.
    json_columns: ClassVar[frozenset[str]] = frozenset()

    def __setattr__(self, name: str, value: Any) -> None:
        before = dict(self.__dict__)
        try:
            super().__setattr__(name, value)
        except ValidationError:
            # Pydantic checks a rule over several fields after the assignment.
            self.__dict__.update(before)
            raise

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """The model of a database row, given as column name to value.

        A Decimal becomes a float, and JSON that arrives as text is parsed. Raises
        `ValidationError` for a column that the model does not have.
        """
        values = {name: cls._decode_value(name, value) for name, value in row.items()}
        return cls.model_validate(values)

    @classmethod
    def _decode_value(cls, name: str, value: Any) -> Any:
        if isinstance(value, Decimal):
            return float(value)
        is_json_text = name in cls.json_columns and isinstance(value, str | bytes)
        return json.loads(value) if is_json_text else value

    def to_row(self) -> dict[str, Any]:
        """All columns, ready to be bound. An enum becomes its text, every other value stays."""
        row = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            row[name] = value.value if isinstance(value, StrEnum) else value
        return row


class ProjectContext(Row):
    """The full state of a project across iterations."""

    json_columns = frozenset({"codebase", "environment_vars", "deployment_config"})

    id: UUID = Field(default_factory=uuid4)
    name: Name
    type: ProjectType
    status: ProjectStatus = ProjectStatus.ACTIVE
    owner_id: Name
    codebase: Files = Field(default_factory=dict)
    dependencies: list[str] = Field(default_factory=list)
    environment_vars: Files = Field(default_factory=dict, repr=False)
    deployment_config: Json = Field(default_factory=dict)
    test_coverage: Score = 0.0
    security_score: Score = 0.0
    performance_score: Score = 0.0
    created_at: AwareDatetime = Field(default_factory=_utc_now)
    updated_at: AwareDatetime = Field(default_factory=_utc_now)
    last_deployed_at: AwareDatetime | None = None


class Modification(Row):
    """A change request to a project. The method `moved_to` takes it to its next status."""

    json_columns = frozenset({"impact_analysis", "modified_files", "test_results"})

    id: UUID = Field(default_factory=uuid4)
    project_id: UUID
    request: Annotated[str, AfterValidator(_refuse_blank)]
    requested_by: Name
    requested_at: AwareDatetime = Field(default_factory=_utc_now)
    impact_analysis: Json = Field(default_factory=dict)
    affected_files: list[str] = Field(default_factory=list)
    status: ModificationStatus = ModificationStatus.PENDING
    applied_at: AwareDatetime | None = None
    modified_files: Files = Field(default_factory=dict)
    test_results: Json = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check_applied_at(self) -> Self:
        is_applied = self.status is ModificationStatus.APPLIED
        has_time = self.applied_at is not None
        if is_applied != has_time:
            raise ValueError("applied_at is given exactly when the status is applied")
        return self

    def moved_to(self, status: ModificationStatus | str, *, at: dt.datetime | None = None) -> Self:
        """A copy in the next status.

        The status `applied` sets `applied_at` to `at`, or to the current time. Raises
        `ValueError` for a step that `STEPS` does not allow.
        """
        following = ModificationStatus(status)
        allowed = STEPS.get(self.status, frozenset())
        if following not in allowed:
            raise ValueError(f"A modification that is {self.status} cannot become {following}.")
        applied_at = None
        if following is ModificationStatus.APPLIED:
            applied_at = at or _utc_now()
        changes = {"status": following, "applied_at": applied_at}
        return type(self).model_validate(self.to_row() | changes)


class Template(Row):
    """A template that new projects start from."""

    json_columns = frozenset({"files"})

    id: UUID = Field(default_factory=uuid4)
    name: Name
    description: str
    category: TemplateCategory
    files: Files = Field(default_factory=dict)
    required_vars: list[str] = Field(default_factory=list)
    optional_vars: list[str] = Field(default_factory=list)
    tech_stack: list[str] = Field(default_factory=list)
    estimated_setup_time: Annotated[int, Field(ge=1, le=2**31 - 1)] = 15
    complexity: Complexity = Complexity.MEDIUM
    tags: list[str] = Field(default_factory=list)
    created_at: AwareDatetime = Field(default_factory=_utc_now)
    updated_at: AwareDatetime = Field(default_factory=_utc_now)

    @model_validator(mode="after")
    def _check_variables(self) -> Self:
        both = set(self.required_vars) & set(self.optional_vars)
        if both:
            raise ValueError(f"both required and optional: {', '.join(sorted(both))}")
        return self
