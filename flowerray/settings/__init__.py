"""The settings of each command: one frozen dataclass, made alike by command line, job script, YAML
file or Python.

Each field carries its own help text; the command line, the Python calls and the YAML files are made
from these, so an option is written down once.
"""

from flowerray.settings.commands import (
    CHECKS,
    BaselineSettings,
    CheckSettings,
    EvaluateSettings,
    ExportSettings,
    ReportSettings,
    SampleSettings,
    VerifySettings,
    WeightsSettings,
)
from flowerray.settings.groups import (
    ClusterSettings,
    ColumnSettings,
    CommandSettings,
    InferenceSettings,
    PhotographSettings,
    PlanSettings,
    StorageSettings,
    UriColumnSettings,
)
from flowerray.settings.jobs import (
    LABEL_FORMATS,
    PRECISIONS,
    PREPARATIONS,
    RECIPES,
    ExtractSettings,
    LabelSettings,
    RunSettings,
    TrainSettings,
)
from flowerray.settings.options import (
    HEADINGS,
    KIND_NAMES,
    KINDS,
    MOST_SEED,
    Settings,
    fault_of,
    flag_of,
    grouped_options,
    is_required,
    kinds_of,
    option,
    options_of,
)

__all__ = [
    "CHECKS",
    "HEADINGS",
    "KINDS",
    "KIND_NAMES",
    "LABEL_FORMATS",
    "MOST_SEED",
    "PRECISIONS",
    "PREPARATIONS",
    "RECIPES",
    "BaselineSettings",
    "CheckSettings",
    "ClusterSettings",
    "ColumnSettings",
    "CommandSettings",
    "EvaluateSettings",
    "ExportSettings",
    "ExtractSettings",
    "InferenceSettings",
    "LabelSettings",
    "PhotographSettings",
    "PlanSettings",
    "ReportSettings",
    "RunSettings",
    "SampleSettings",
    "Settings",
    "StorageSettings",
    "TrainSettings",
    "UriColumnSettings",
    "VerifySettings",
    "WeightsSettings",
    "fault_of",
    "flag_of",
    "grouped_options",
    "is_required",
    "kinds_of",
    "option",
    "options_of",
]
